from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drytrack.core._secrets import MASK, is_secret_key, mask_command_line, mask_text

SECRET_NAMES = """
    password passwd passphrase db_password DB_PASSWORD PGPASSWORD password1 dbPassword
    token hf_token HFToken token2 accessToken access_tokens api_token X-Auth-Token
    slack_bot_token api_key apikey apiKey APIKey x-api-key WANDB_API_KEY wandb.api_key
    OPENAI_API_KEY openai_key secret SECRET client_secret secret_key access_key
    aws_secret_access_key AWS_ACCESS_KEY_ID private_key ssh_key credential credentials
    auth basic_auth authorization Authorization oauth cookie db_pwd
"""

HARMLESS_NAMES = """
    tokenizer tokenizer_name max_tokens num_tokens token_count n_tokens tokens_per_batch
    tokens token_dropout pad_token padToken eos_token pad_token_id bos_token cls_token
    mask_token class_token author authors authority secretary key keys monkey keyboard
    public_key primary_key sort_key passes bypass compass passive PWD lr
    password_length token_type api_key_env auth_method private_key_path
"""

LEAKS = [
    ("postgresql://ada:hunter2@db/runs", "hunter2"),
    ("postgresql://ada:hun@ter2@db/runs", "ter2"),
    ("mysql://ada:hun/ter#2@db/runs", "ter#2"),
    ("redis://:hunter2@cache:6379", "hunter2"),
    ("https://abcdef@github.com/ada/net", "abcdef"),
    ("see https://ada:hunter2@host and http://bob:swordfish@host", "swordfish"),
    ("https://host/upload?api_key=hunter2&step=3", "hunter2"),
    ("train.py --token=hunter2 --lr=0.1", "hunter2"),
    ("train.py --db-password hunter2 --lr 0.1", "hunter2"),
    ("export WANDB_API_KEY=hunter2", "hunter2"),
    ('{"user": "ada", "password": "hun\\"ter2"}', "ter2"),
    (r"{\"password\": \"hunter2\", \"lr\": 1}", "hunter2"),
    ("Login(user='ada', password='hunter2')", "hunter2"),
    ("Login(user=ada, password=hunter2)", "hunter2"),
    ("db[password]=hunter2", "hunter2"),
    ("Authorization: Basic aHVudGVyMg==", "aHVudGVyMg"),
    ("curl -H 'X: Bearer hunter2hunter2'", "hunter2"),
    ("AccountName=ada;AccountKey=hunter2==;Suffix=net", "hunter2"),
    ("the key is sk-proj-abc123abc123abc123", "abc123"),
    ("the key is sk-abcdefghijklmnopqrstuvwx", "abcdefgh"),
    ("hf_abcdefghijklmnopqrstuvwxyzABCDEFGH", "abcdef"),
    ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "abcdef"),
    ("AKIAIOSFODNN7EXAMPLE", "IOSFODNN"),
    ("eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.SflKxwRJSMeKKF2QT4", "SflKx"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "MIIE"),
]

HARMLESS_TEXTS = [
    "a plain sentence about keys, tokens and passwords",
    "the token is here",
    "max_tokens=512, pad_token=<pad>, author=ada",
    "token=5 auth=true password=null",
    "https://host:8080/runs?mail=ada@host",
    "git clone ssh://git@github.com/ada/net",
    "ada@host.org",
    "sk-learn-style-estimator-names",
    "experiments/2026-11-20_23-12-01/token_count.csv",
]


@pytest.mark.parametrize("name", SECRET_NAMES.split())
def test_a_name_of_a_credential_is_secret(name):
    assert is_secret_key(name)


@pytest.mark.parametrize("name", HARMLESS_NAMES.split())
def test_a_name_of_a_setting_is_no_secret(name):
    assert not is_secret_key(name)


@pytest.mark.parametrize(("text", "secret"), LEAKS)
def test_a_credential_in_a_text_is_masked(text, secret):
    masked = mask_text(text)

    assert secret not in masked
    assert MASK in masked


@pytest.mark.parametrize("text", HARMLESS_TEXTS)
def test_a_text_without_credentials_is_unchanged(text):
    assert mask_text(text) == text


def test_what_surrounds_a_credential_is_kept():
    text = "run https://ada:pw@host/x?api_key=abcd&step=3 --token=abcd --lr=1"

    masked = mask_text(text)

    assert masked == "run https://***@host/x?api_key=***&step=3 --token=*** --lr=1"


def test_json_with_a_masked_value_is_still_json():
    assert mask_text('{"token": "abcd", "lr": 1}') == '{"token": "***", "lr": 1}'


FRAGMENTS = st.sampled_from(
    [
        *"://@?&=;,'\"\\[]{} \n-a1é",
        *("https", "token", "password=", "--api-key ", "Bearer ", "sk-", "eyJ", "***"),
        *("hf_", "abcdefghijklmnopqrstuvwxyz", "AKIA", "12345", "Authorization: "),
    ]
)


@given(st.lists(FRAGMENTS, max_size=30).map("".join))
def test_masking_twice_is_masking_once(text):
    once = mask_text(text)

    assert mask_text(once) == once


@given(st.from_regex(r"[A-Za-z0-9!#%*+/=?^_~$.-]{4,40}", fullmatch=True))
def test_no_password_survives_behind_its_name(password):
    password = f"{password}Q"

    assert password not in mask_text(f"password={password} lr=1")
    assert password not in mask_text(f'{{"password": "{password}"}}')
    assert password not in " ".join(mask_command_line(["--password", f"x{password}"]))


def test_a_command_line_keeps_its_arguments_and_loses_its_secrets():
    argv = ["train.py", "--token=abcd", "--token", "abcd", "db.password=abcd", "lr=1"]
    argv += ["+hf.token=abcd", "--max-tokens", "512", "http://ada:pw@host"]

    masked = mask_command_line(argv)

    assert masked == [
        *("train.py", "--token=***", "--token", "***", "db.password=***", "lr=1"),
        *("+hf.token=***", "--max-tokens", "512", "http://***@host"),
    ]


def test_a_value_with_spaces_is_masked_whole():
    masked = mask_command_line(
        ["--password=correct horse", "--secret", "battery staple"]
    )

    assert masked == ["--password=***", "--secret", "***"]


def test_an_option_after_a_secret_flag_is_no_value():
    argv = ["--use-auth", "--lr", "3", "--token=", "--auth", "--batch-size=8"]

    assert mask_command_line(argv) == argv
