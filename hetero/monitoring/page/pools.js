// One card per pool: what it could do, what it does, and where its time goes. Real and emulated pools stand apart.

import { figure, fill, html, legend, part } from "./dom.js";
import { bytes, count, percent, plain, seconds } from "./format.js";

const PARTS = [
  ["busy", "busy", "busy"],
  ["bubble", "bubble", "bubble"],
  ["bridge_wait", "bridge-wait", "bridge wait"],
  ["other", "other", "other"],
];
const FACTS = [
  ["MFU", "mfu", percent],
  ["optimizer, within busy", "optimizer", percent],
  ["waits for data, within other", "data_wait", percent],
  ["TFLOP/s per chip", "tflops_per_chip", (value) => plain(value, 3)],
  ["peak memory of a chip", "peak_memory_bytes", bytes],
];

export function showPools(place, { run, record }) {
  if (!run) return;
  const kinds = [false, true].map((emulated) => run.pools.filter((pool) => pool.emulated === emulated));
  fill(place, ...kinds.filter((pools) => pools.length).map((pools) => group(pools, record)));
}

function group(pools, record) {
  const words = pools[0].emulated ? "Emulated pools" : "Pools";
  const rates = pools.map((pool) => record?.pools[pool.name]?.capacity_tokens_per_s ?? 0);
  const cards = pools.map((pool) => card(pool, record?.pools[pool.name], Math.max(1, ...rates), record?.step_s));
  return html("div", { class: "pool-group" }, heading(words), html("div", { class: "pools" }, ...cards));
}

function heading(words) {
  return html("div", { class: "heading" }, html("h2", {}, words), legend(PARTS.map(([, kind, said]) => [kind, said])));
}

function card(pool, figures, most, step_s) {
  const attributes = { class: `card pool pool-${pool.color} ${pool.slow ? "slowed" : ""}`, "data-pool": pool.name };
  const mark = html("span", { class: "swatch pool-color" });
  return html(
    "article",
    attributes,
    html("div", { class: "pool-name" }, mark, html("h3", {}, pool.name), alert(pool)),
    html("p", { class: "quiet" }, `${pool.count} x ${pool.chip} · ${pool.family}`, pool.idle ? ` · ${pool.idle} idle` : null),
    ...(figures ? body(pool.name, figures, most, step_s) : [html("p", { class: "quiet" }, "no figures yet")]),
  );
}

function alert({ slow }) {
  if (!slow) return null;
  const usual = `its median: ${count(slow.median_tokens_per_s)} tokens/s`;
  return html(
    "span",
    { class: "pill bad alert", title: usual },
    `slow: ${percent(1 - slow.ratio, 0)} below its median`,
  );
}

function body(name, figures, most, step_s) {
  const shown = (key, format) => figure(figures[key], format(figures[key]), `${name}.${key}`);
  const said = PARTS.map(([key, kind, words]) => [key, kind, `${words} ${percent(figures[key])}`]);
  const bar = { class: "bar", role: "img", "aria-label": said.map(([, , words]) => words).join(", ") };
  return [
    html(
      "div",
      { class: "rates" },
      rate("capacity", shown("capacity_tokens_per_s", count)),
      rate("actual", shown("tokens_per_s", count)),
    ),
    gauge(figures, most),
    html("div", bar, ...said.map(([key, kind, words]) => part(kind, figures[key], words))),
    html("dl", { class: "shares" }, ...PARTS.flatMap(([key, , words]) => pair(words, shown(key, percent)))),
    html(
      "dl",
      { class: "facts" },
      ...FACTS.flatMap(([words, key, format]) => pair(words, shown(key, format))),
      ...pair("sent per step", shown("bytes_sent", bytes), rateOf(figures.bytes_sent, step_s)),
      ...pair("received per step", shown("bytes_received", bytes), rateOf(figures.bytes_received, step_s)),
      ...pair("waits for the bridge", seconds(figures.bridge_wait * step_s), " a step"),
    ),
  ];
}

function rate(words, value) {
  return html(
    "div",
    { class: `rate ${words}` },
    html("span", { class: "value" }, value),
    html("span", { class: "aside" }, `${words}, tokens/s`),
  );
}

/** Actual inside capacity, on one scale for all pools of a group. */
function gauge(figures, most) {
  const [outer, inner] = [html("div", { class: "gauge-capacity" }), html("div", { class: "gauge-actual" })];
  outer.style.width = `${(100 * figures.capacity_tokens_per_s) / most}%`;
  inner.style.width = `${(100 * figures.tokens_per_s) / most}%`;
  return html("div", { class: "gauge", title: "actual within capacity; one scale for all pools" }, outer, inner);
}

function rateOf(size, step_s) {
  return step_s ? ` · ${bytes(size / step_s)}/s` : null;
}

function pair(words, value, aside = null) {
  return [html("dt", {}, words), html("dd", {}, value, aside)];
}
