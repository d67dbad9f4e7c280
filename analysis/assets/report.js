"use strict";
// Draws the figures of a report from the JSON beside each, and links them: trials that are selected in one figure or
// table are marked in all others. Points carry the number of their trial as customdata, rows as data-trial.
(() => {
  const touch = matchMedia("(pointer: coarse)").matches;
  const plots = [];
  const texts = new Map(); // what a trial says of itself, by number
  let selected = new Set();
  let busy = 0; // figures that are being marked, which is no choice of the reader's

  async function draw(box) {
    const plot = box.querySelector(".plot");
    const figure = JSON.parse(box.querySelector("script").textContent);
    const link = box.dataset.link;
    const tools = "tools" in box.dataset;
    figure.layout.dragmode = touch ? false : tools ? "select" : "zoom";
    const opacity = figure.data.map((trace) => trace.opacity ?? 1);
    if (link === "lines") {
      const line = { color: "#D55E00", width: 3 };
      figure.data.push({ type: "scatter", mode: "lines+markers", x: [], y: [], customdata: [], line, showlegend: false,
        marker: { color: line.color, size: 7 }, hovertemplate: "trial %{customdata}<extra></extra>" });
    }
    await Plotly.newPlot(plot, figure.data, figure.layout, { responsive: true, displayModeBar: false });
    if (tools) addTools(box, plot);
    if (!link) return;
    plots.push({ plot, link, opacity });
    // Plotly also says so whenever it draws anew: only what a reader dragged has a range or a lasso
    plot.on("plotly_selected", (event) => !busy && (event?.range || event?.lassoPoints) && select(trialsOf(event)));
    plot.on("plotly_deselect", () => busy || select([]));
    plot.on("plotly_click", (event) => toggle(trialsOf(event)[0], event.event));
    if (link === "points") plot.data.forEach((trace) => (trace.text ?? []).forEach?.((text, place) => {
      const trial = trace.customdata?.[place];
      if (trial !== undefined && !texts.has(trial)) texts.set(trial, text);
    }));
  }

  const trialsOf = (event) => event.points.map((point) => point.customdata).filter(Number.isInteger);

  function addTools(box, plot) {
    const bar = document.createElement("div");
    bar.className = "tools";
    bar.append("Drag:");
    const modes = { select: "box", lasso: "lasso", zoom: "zoom", false: "nothing" };
    for (const [mode, label] of Object.entries(modes)) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      const value = mode === "false" ? false : mode;
      button.setAttribute("aria-pressed", String(plot.layout.dragmode === value));
      button.addEventListener("click", () => {
        Plotly.relayout(plot, { dragmode: value });
        for (const other of bar.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
      });
      bar.append(button);
    }
    box.prepend(bar);
  }

  function toggle(trial, event) {
    if (trial === undefined) return;
    const only = selected.size === 1 && selected.has(trial);
    if (!event?.shiftKey) return select(only ? [] : [trial]);
    const next = new Set(selected);
    if (!next.delete(trial)) next.add(trial);
    select(next);
  }

  function select(trials) {
    selected = new Set(trials);
    for (const plot of plots) {
      busy += 1;
      mark(plot).finally(() => { busy -= 1; });
    }
    for (const row of document.querySelectorAll("tr[data-trial]")) {
      row.classList.toggle("selected", selected.has(Number(row.dataset.trial)));
    }
    tell();
  }

  function mark({ plot, link, opacity }) {
    const none = selected.size === 0;
    if (link === "lines") return markLines(plot, opacity, none);
    const all = plot.data.map((_, place) => place);
    const linked = all.filter((place) => Array.isArray(plot.data[place].customdata));
    const chosen = (place) => plot.data[place].customdata.flatMap((trial, at) => (selected.has(trial) ? [at] : []));
    if (link === "curves") { // a trace is a trial
      const some = linked.some((place) => chosen(place).length);
      return Plotly.restyle(plot, { opacity: linked.map((place) => (!some || chosen(place).length ? 1 : 0.12)) }, linked);
    }
    const points = all.map((place) => (none || !linked.includes(place) ? null : chosen(place)));
    return Plotly.update(plot, { selectedpoints: points }, { selections: [] }, all);
  }

  // Many trials share a trace of lines: the selected ones are drawn once more, above, and the others fade.
  function markLines(plot, opacity, none) {
    const found = { x: [], y: [], customdata: [] };
    plot.data.slice(0, -1).forEach((trace) => trace.customdata.forEach((trial, at) => {
      if (!selected.has(trial)) return;
      for (const [name, values] of Object.entries(found)) values.push(trace[name][at]);
    }));
    const last = plot.data.length - 1;
    const all = plot.data.map((_, place) => place);
    const faded = [...opacity.map((value) => (none ? value : Math.min(value, 0.1))), 1];
    const drawn = Object.fromEntries(Object.entries(found).map(([name, values]) => [name, [values]]));
    return Plotly.restyle(plot, drawn, [last])
      .then(() => Plotly.update(plot, { opacity: faded, selectedpoints: all.map(() => null) }, { selections: [] }, all));
  }

  function plain(text) { // of a figure's label: its line breaks are markup, the rest is escaped
    const area = document.createElement("textarea");
    area.innerHTML = text.replaceAll("<br>", "\n");
    return area.value.split("\n").join(" · ");
  }

  function tell() {
    const box = document.getElementById("selection");
    if (!box) return;
    const numbers = [...selected].sort((a, b) => a - b);
    box.hidden = !numbers.length;
    const listed = numbers.slice(0, 40).join(", ") + (numbers.length > 40 ? ` and ${numbers.length - 40} more` : "");
    const [count, detail] = box.querySelectorAll("p");
    count.textContent = numbers.length === 1 ? `Selected: trial ${listed}` : `Selected: ${numbers.length} trials: ${listed}`;
    detail.textContent = numbers.length === 1 ? plain(texts.get(numbers[0]) ?? "") : "";
  }

  async function start() {
    for (const box of document.querySelectorAll(".figure")) {
      try {
        await draw(box);
      } catch (error) { // one figure must not cost the others
        box.querySelector(".plot").textContent = `This figure could not be drawn: ${error.message}`;
        console.error(error);
      }
    }
    for (const row of document.querySelectorAll("tr[data-trial]")) {
      row.addEventListener("click", (event) => toggle(Number(row.dataset.trial), event));
    }
    document.querySelector("#selection button")?.addEventListener("click", () => select([]));
    addEventListener("keydown", (event) => event.key === "Escape" && selected.size && select([]));
    document.body.dataset.drawn = "all";
  }
  start();
})();
