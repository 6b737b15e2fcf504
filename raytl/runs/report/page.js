"use strict";
// Draws the figures in the colours of the page, again when those change or the page is printed, and lets the cells of the
// confusion matrix pick the examples below it.
const dark = matchMedia("(prefers-color-scheme: dark)");
const figures = [...document.querySelectorAll("script[data-figure]")].map((script) => ({
  place: document.getElementById(script.dataset.figure),
  figure: JSON.parse(script.textContent),
}));

function draw(isDark) {
  const ink = isDark ? "#e6e9ec" : "#1c2127";
  const grid = isDark ? "#343b43" : "#dde2e7";
  for (const { place, figure } of figures) {
    const layout = structuredClone(figure.layout);
    Object.assign(layout, { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true });
    layout.font = { color: ink, size: 13, family: getComputedStyle(document.body).fontFamily };
    for (const axis of ["xaxis", "yaxis"]) {
      const title = { text: "", ...layout[axis]?.title, font: { size: 13 } };
      layout[axis] = { gridcolor: grid, zerolinecolor: isDark ? "#8a939c" : "#7a838c", linecolor: grid, fixedrange: innerWidth < 600, ...layout[axis], title };
    }
    const data = structuredClone(figure.data);
    for (const trace of data) if (trace.error_x) trace.error_x.color = ink;
    Plotly.react(place, data, layout, { responsive: true, displaylogo: false, displayModeBar: false });
  }
}

function pick(cell) {
  let found = 0;
  for (const example of document.querySelectorAll(".example")) {
    const [label, guess] = example.dataset.cell.split(",");
    example.hidden = cell === null ? label === guess : example.dataset.cell !== cell;
    found += example.hidden ? 0 : 1;
  }
  const all = document.getElementById("all-examples");
  if (all) all.hidden = cell === null;
  const told = document.getElementById("examples-told");
  if (told) told.textContent = cell !== null && !found ? "No example of this cell is kept in the report." : "";
}

draw(dark.matches);
dark.addEventListener("change", () => draw(dark.matches));
addEventListener("beforeprint", () => draw(false));
addEventListener("afterprint", () => draw(dark.matches));
document.getElementById("all-examples")?.addEventListener("click", () => pick(null));
document.getElementById("confusion")?.on?.("plotly_click", (event) => pick(event.points[0].customdata));
