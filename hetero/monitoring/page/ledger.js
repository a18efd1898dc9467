// Where the speed went: parts of the ideal throughput, as the plan foresaw them and as the recent steps were.

import { fill, figure, heading, html } from "./dom.js";
import { percent, seconds } from "./format.js";

export function showLedger(place, { run, ledger }) {
  place.hidden = !run || !ledger;
  if (place.hidden) return;
  const title = heading(`Ledger${run.emulated ? " (emulated)" : ""} up to step ${ledger.step.toLocaleString("en")}`);
  fill(place, title, ...(ledger.missing ? [html("p", { class: "quiet note" }, ledger.missing)] : tables(ledger)));
}

function tables({ speeds, predicted_step_s, measured_step_s, rows, parts, pools }) {
  const step = `The step was predicted to take ${seconds(predicted_step_s)} and takes ${seconds(measured_step_s)}.`;
  return [
    html("p", { class: "quiet note" }, `Speeds and prediction are by ${speeds}. ${step}`),
    table(["part", "predicted", "measured"], rows, "ledger"),
    pools.length ? table(["pool", ...parts], pools, "ledger of") : null,
  ];
}

function table(columns, rows, name) {
  return html(
    "div",
    { class: "wide" },
    html(
      "table",
      {},
      html("thead", {}, html("tr", {}, ...columns.map((words) => html("th", { scope: "col" }, words)))),
      html("tbody", {}, ...rows.map((row) => line(row, columns, name))),
    ),
  );
}

function line([words, ...shares], columns, name) {
  const cells = shares.map((share, at) => html("td", {}, figure(share, percent(share), `${name} ${words}.${columns[at + 1]}`)));
  return html("tr", {}, html("th", { scope: "row" }, words), ...cells);
}
