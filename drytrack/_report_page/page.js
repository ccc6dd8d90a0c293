"use strict";
// Names reach the page as text alone: by the template, or through `say` here.
(async () => {
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const SYMBOLS = { nan: "x", inf: "triangle-up", "-inf": "triangle-down", "<= 0": "y-down-open" };
  const HEIGHT = 250;
  const PAPER_WIDTH = 325; // of a chart: two of them are beside each other
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const hover = matchMedia("(hover: hover)");
  const state = { log: false, smooth: 0, print: false };
  const element = (id) => document.getElementById(id);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Plotly reads tags and entities in any text.
  const say = (text) =>
    String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  async function unpack(id) {
    const bytes = Uint8Array.from(atob(element(id).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  const look = () => data.looks[dark.matches && !state.print ? "dark" : "light"];

  // The same average as drytrack.trackers._plot_points.smooth; a value may stand
  // for several.
  function smooth(steps, values, counts, halfLife) {
    let total = 0, weight = 0, last = 0;
    return values.map((value, i) => {
      const decay = 0.5 ** ((steps[i] - last) / halfLife);
      last = steps[i];
      total *= decay;
      weight *= decay;
      if (value === null) return null;
      const count = counts ? counts[i] : 1;
      total += count * value;
      weight += count;
      return total / weight;
    });
  }

  // Half-life as a share of a curve's length.
  const share = () => 0.25 * (state.smooth / 100) ** 2;

  function styleOf(color) {
    const palette = look().palette;
    return {
      color: palette[color % palette.length],
      dash: DASHES[Math.floor(color / palette.length) % DASHES.length],
    };
  }

  function tracesOf(curve, label, log) {
    const { color, dash } = styleOf(curve.color);
    const name = say(label);
    const shown = (y) => (log ? y.map((v) => (v !== null && v > 0 ? v : null)) : y);
    const line = { color, dash, width: curve.x.length > 500 ? 1.2 : 2 };
    const main = { x: curve.x, y: shown(curve.y), name, line, mode: "lines" };
    const made = [main];
    const halfLife = share() * (curve.x[curve.x.length - 1] - curve.x[0]);
    if (halfLife > 0) {
      const raw = { ...main, line: { color, width: 1 }, opacity: 0.3, hoverinfo: "skip" };
      made.unshift({ ...raw, meta: "raw" });
      const [x, y, counts] = curve.mean || [curve.x, curve.y, null];
      Object.assign(main, { x, y: smooth(x, shown(y), counts, halfLife), line: { ...line, width: 2 } });
    }
    main.meta = "line";
    if (curve.dots.length && main.x === curve.x) {
      const size = new Array(main.x.length).fill(0);
      for (const place of curve.dots) size[place] = 5;
      Object.assign(main, { mode: "lines+markers", marker: { size, color, line: { width: 0 } } });
    }
    const marks = { ...curve.marks };
    if (log) {
      const low = curve.x.filter((_, i) => curve.y[i] !== null && curve.y[i] <= 0);
      if (low.length) marks["<= 0"] = low;
    }
    for (const [kind, x] of Object.entries(marks)) {
      const inward = 0.03 + 0.045 * (curve.color % 6);
      const height = kind === "inf" ? 1 - inward : inward;
      made.push({
        x, y: x.map(() => height), yaxis: "y2", mode: "markers", cliponaxis: false, meta: kind,
        name: `${name}: ${say(data.markNames[kind])}`, hoverinfo: "x+name",
        marker: { symbol: SYMBOLS[kind], size: 8, color },
      });
    }
    return made;
  }

  // A chart is as wide as its panel was when it was drawn: on a screen, not on paper.
  const size = () =>
    state.print ? { width: PAPER_WIDTH, autosize: false } : { width: undefined, autosize: true };

  function layoutOf(xTitle, more) {
    const { ink, faint, grid, paper } = look();
    const axis = { gridcolor: grid, linecolor: faint, showline: true, zeroline: false, automargin: true };
    const layout = {
      height: HEIGHT, showlegend: false, uirevision: "keep", ...size(),
      margin: { l: 48, r: 12, t: 10, b: 40 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, size: 12 },
      hovermode: "closest",
      hoverlabel: { bgcolor: paper, bordercolor: faint, font: { color: ink }, namelength: -1 },
      dragmode: hover.matches ? "zoom" : false, // a finger scrolls the page
      xaxis: { ...axis, nticks: 6, title: { text: say(xTitle), standoff: 4 } },
      yaxis: { ...axis, nticks: 6, hoverformat: ".5~g" },
    };
    for (const key of Object.keys(more)) layout[key] = { ...layout[key], ...more[key] };
    return layout;
  }

  const config = {
    responsive: true, displaylogo: false, displayModeBar: hover.matches ? "hover" : false,
    modeBarButtonsToRemove: ["sendChartToCloud", "sendDataToCloud", "lasso2d", "select2d"],
  };

  function drawPanel(place) {
    const box = place.closest(".group");
    const group = data[box.dataset.kind][box.dataset.group];
    const panel = group.panels[place.dataset.panel];
    const shown = panel.curves.filter((curve) => !hidden(box, curve.color));
    const positive = panel.curves.some((curve) => curve.y.some((v) => v !== null && v > 0));
    const log = state.log && positive && box.dataset.kind === "curves";
    const ends = panel.curves.flatMap((curve) => [curve.x[0], curve.x[curve.x.length - 1]]);
    const span = Math.max(...ends) - Math.min(...ends);
    const traces = shown.flatMap((curve) => tracesOf(curve, group.labels[curve.color], log));
    const layout = layoutOf(group.axis, {
      xaxis: { tickformat: "~s", dtick: span < 8 ? 1 : null },
      yaxis: { type: log ? "log" : "linear", uirevision: log },
      yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true },
    });
    Plotly.react(place, traces, layout, config);
  }

  function drawHistory(place) {
    const { steps, edges, shares, newest } = data.histories[place.dataset.history];
    const { ramp, paper } = look();
    if (steps.length === 1) {
      const trace = {
        type: "scatter", mode: "lines", fill: "tozeroy", line: { shape: "hv", color: ramp[1] },
        x: newest.edges, y: [...newest.counts, newest.counts[newest.counts.length - 1]],
      };
      const layout = layoutOf("value", { yaxis: { title: { text: "count" }, rangemode: "tozero" } });
      Plotly.react(place, [trace], layout, config);
      return;
    }
    const trace = {
      type: "heatmap", x: steps, y: edges, z: edges.slice(1).map((_, bin) => shares.map((s) => s[bin])),
      colorscale: [[0, paper], [0.15, ramp[0]], [1, ramp[1]]], zmin: 0,
      colorbar: { thickness: 10, outlinewidth: 0, tickformat: ".0%" },
      hovertemplate: "step %{x}, value %{y:.4g}: %{z:.1%}<extra></extra>",
    };
    const layout = layoutOf("step", { xaxis: { tickformat: "~s", showgrid: false }, yaxis: { showgrid: false } });
    Plotly.react(place, [trace], layout, config);
  }

  function drawFigure(place) {
    const { data: traces, layout } = data.figures[place.dataset.figure];
    const height = Math.min((layout && layout.height) || 360, 900);
    place.style.height = `${height}px`;
    // Its colors are for a paper of its own, light or dark, and stay as they are.
    Plotly.react(place, traces || [], { ...layout, height, ...size() }, config);
  }

  function draw(place) {
    place.dataset.drawn = "yes";
    try {
      if ("panel" in place.dataset) drawPanel(place);
      else if ("history" in place.dataset) drawHistory(place);
      else drawFigure(place);
    } catch (error) {
      place.textContent = `This cannot be drawn: ${error}`;
    }
  }

  const redraw = (root = document) => all(".plot[data-drawn]", root).forEach(draw);

  // -- legends --

  const hidden = (box, color) =>
    box.querySelector(`.legend [data-color="${color}"]`).getAttribute("aria-pressed") === "false";

  function colorLegends() {
    for (const button of all(".legend button")) {
      const { color, dash } = styleOf(Number(button.dataset.color));
      const line = button.querySelector("line");
      line.style.stroke = color;
      line.style.strokeDasharray = { solid: "none", dash: "6 3", dot: "2 3", dashdot: "6 3 2 3" }[dash];
    }
  }

  function onLegend(event) {
    const button = event.target.closest("button");
    if (!button) return;
    const buttons = all("button", button.parentElement);
    const pressed = (one) => one.getAttribute("aria-pressed") === "true";
    if (event.type === "dblclick") {
      // The clicks before it have left it as it was. Once more shows all again.
      const alone = buttons.every((one) => pressed(one) === (one === button));
      for (const one of buttons) one.setAttribute("aria-pressed", alone || one === button);
    } else {
      button.setAttribute("aria-pressed", !pressed(button));
    }
    redraw(button.closest(".group"));
  }

  // -- the page --

  function print(on) {
    state.print = on;
    if (on) for (const one of all("details:not([open])")) { one.open = true; one.dataset.closed = "yes"; }
    else for (const one of all("details[data-closed]")) { one.open = false; delete one.dataset.closed; }
    colorLegends();
    if (on) all(".plot").forEach(draw);
    else redraw();
  }

  for (const image of all(".pictures img")) {
    const look = () => image.classList.toggle("tiny", image.naturalWidth <= 64);
    if (image.complete) look();
    else image.addEventListener("load", look);
  }
  if (element("differing")) {
    element("differing").addEventListener("change", (event) =>
      all("#params .compared").forEach((table) => table.classList.toggle("only-differing", event.target.checked)));
  }

  let data;
  try {
    data = JSON.parse(await unpack("data"));
    if (element("plotly").textContent) {
      const script = document.createElement("script");
      script.textContent = await unpack("plotly");
      document.head.append(script);
    }
  } catch (error) {
    element("problem").textContent = `The curves cannot be drawn in this browser (${error}). A newer one can.`;
    element("problem").hidden = false;
    return;
  }
  if (!window.Plotly) return;

  colorLegends();
  for (const legend of all(".legend")) {
    legend.addEventListener("click", onLegend);
    legend.addEventListener("dblclick", onLegend);
  }
  if (element("log")) {
    const change = () => {
      state.log = element("log").checked;
      state.smooth = Number(element("smooth").value);
      const text = share() ? `half-life ${(100 * share()).toPrecision(2)} % of a curve` : "off";
      element("half-life").textContent = text;
      redraw();
    };
    element("log").addEventListener("change", change);
    element("smooth").addEventListener("input", change);
    change(); // a browser may have kept what was chosen before
  }
  dark.addEventListener("change", () => { colorLegends(); redraw(); });
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting && !target.dataset.drawn) draw(target);
    }
  }, { rootMargin: "400px" });
  all(".plot").forEach((place) => seen.observe(place));
  document.documentElement.dataset.ready = "yes";
})();
