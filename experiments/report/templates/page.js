// What the page does: tables that sort, losses that compare by hovering. No network, no storage.
"use strict";


// Tables: numbers by value, names by letter; empty cells stay last, and equal ones keep their order.
function sortBy(table, column) {
  const heads = [...table.tHead.rows[0].cells];
  const ascending = heads[column].getAttribute("aria-sort") !== "ascending";
  heads.forEach((head, i) => head.setAttribute("aria-sort", i !== column ? "none" : ascending ? "ascending" : "descending"));
  const order = (row) => row.cells[column].dataset.order;
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => {
    const [x, y] = [order(a), order(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    const difference = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
    return ascending ? difference : -difference;
  });
  table.tBodies[0].append(...rows);
}
for (const table of document.querySelectorAll("table.sortable")) {
  table.tHead.querySelectorAll("button").forEach((button, column) => button.addEventListener("click", () => sortBy(table, column)));
}

// Losses: one curve per run; the buttons say which loss.
function drawCurves(element, curves, key) {
  const narrow = element.clientWidth < 640;
  const traces = curves.runs.map((run) => ({
    x: run.epoch, y: run[key], name: run.name, mode: run.epoch.length > 1 ? "lines" : "markers",
    line: { color: run.colour, dash: run.dash, width: 1.8 }, marker: { color: run.colour },
    hovertemplate: "%{y:.5g} %{fullData.name}<extra></extra>",
  }));
  const layout = {
    margin: { l: 60, r: 10, t: 10, b: 45 }, hovermode: narrow ? "closest" : "x unified", hoverlabel: { font: { size: 11 }, namelength: -1 },
    font: { family: "system-ui, sans-serif", size: 12, color: "#1d2733" }, showlegend: !narrow, legend: { font: { size: 11 } },
    xaxis: { title: { text: "epoch" }, gridcolor: "#eef1f4", zeroline: false },
    yaxis: { title: { text: curves.losses[key] }, gridcolor: "#eef1f4", zeroline: false },
  };
  return Plotly.react(element, traces, layout, { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d"] });
}
const allCurves = JSON.parse(document.getElementById("curves").textContent);
for (const box of document.querySelectorAll("[data-curves]")) {
  const curves = allCurves[box.dataset.curves];
  const buttons = [...box.querySelectorAll("[data-loss]")];
  const choose = (chosen) => {
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button === chosen)));
    drawCurves(box.querySelector(".plot"), curves, chosen.dataset.loss);
  };
  buttons.forEach((button) => button.addEventListener("click", () => choose(button)));
  choose(buttons[0]);
}
