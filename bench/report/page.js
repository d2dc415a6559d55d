"use strict";
// Draws the figures and sorts tables. Its hash stands in the page's content policy.
const root = document.documentElement;
root.dataset.csp = "0";
document.addEventListener("securitypolicyviolation", (event) => {
  root.dataset.csp = String(Number(root.dataset.csp) + 1);
  root.dataset.cspWhat = event.violatedDirective + " " + event.blockedURI;
});

function sortBy(table, column, down) {
  const body = table.tBodies[0];
  const key = (row) => row.cells[column].dataset.key ?? row.cells[column].textContent.trim();
  const rows = Array.from(body.rows).map((row, i) => [key(row), i, row]);
  rows.sort(([a, i], [b, j]) => {
    if (a === "" || b === "") return (a === "") - (b === "") || i - j;  // empty ones stay last
    const numbers = !isNaN(a) && !isNaN(b);
    const order = numbers ? a - b : a.localeCompare(b, "en", { numeric: true });
    return (down ? -order : order) || i - j;
  });
  body.append(...rows.map((entry) => entry[2]));
}

for (const table of document.querySelectorAll("table.sortable")) {
  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    head.firstElementChild.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      sortBy(table, column, down);
    });
  });
  table.dataset.ready = "1";
}

for (const data of document.querySelectorAll("script[type='application/json']")) {
  const figure = JSON.parse(data.textContent);
  const place = document.getElementById(data.dataset.target);
  const image = { format: "svg", filename: data.dataset.file };
  const config = { responsive: true, displaylogo: false, toImageButtonOptions: image };
  // Plotly 7 would offer to upload the chart to a server of its maker.
  config.showSendToCloud = false;
  config.plotlyServerURL = "";
  config.modeBarButtonsToRemove = ["select2d", "lasso2d", "autoScale2d"];
  Plotly.newPlot(place, figure.data, figure.layout, config);
}
root.dataset.ready = "1";
