// One card per pool: what it could do, what it does, and where its time goes.

import { figure, html, legend, part } from "./dom.js";
import { bytes, count, percent, plain } from "./format.js";

const PARTS = [
  ["busy", "busy", "busy"],
  ["bubble", "bubble", "bubble"],
  ["bridge_wait", "bridge-wait", "bridge wait"],
  ["other", "other", "other"],
];

export function showPools(place, { run, record }) {
  if (!run) return;
  const figures = record?.pools ?? {};
  const most = Math.max(1, ...Object.values(figures).map((pool) => pool.capacity_tokens_per_s));
  place.replaceChildren(
    html("div", { class: "heading" }, html("h2", {}, "Pools"), legend(PARTS.map(([, kind, words]) => [kind, words]))),
    html("div", { class: "pools" }, ...run.pools.map((pool) => card(pool, figures[pool.name], most))),
  );
}

function card(pool, figures, most) {
  return html(
    "article",
    { class: `card pool pool-${pool.color}${pool.slow ? " slowed" : ""}`, "data-pool": pool.name },
    html(
      "div",
      { class: "pool-name" },
      html("span", { class: "swatch pool-color" }),
      html("h3", {}, pool.name),
      alert(pool),
    ),
    html("p", { class: "quiet" }, `${pool.count} x ${pool.chip} · ${pool.family}${pool.emulated ? " · emulated" : ""}`),
    ...(figures ? body(pool.name, figures, most) : [html("p", { class: "quiet" }, "no step yet")]),
  );
}

function alert({ slow }) {
  return (
    slow &&
    html(
      "span",
      { class: "pill bad alert", title: `its median: ${count(slow.median_tokens_per_s)} tokens/s` },
      `slow: ${percent(1 - slow.ratio, 0)} below its median`,
    )
  );
}

function body(name, figures, most) {
  return [
    html(
      "div",
      { class: "rates" },
      rate(name, "capacity", "capacity_tokens_per_s", figures),
      rate(name, "actual", "tokens_per_s", figures),
    ),
    gauge(figures, most),
    html(
      "div",
      { class: "bar", role: "img", "aria-label": shares(figures) },
      ...PARTS.map(([key, kind, words]) => part(kind, figures[key], `${words} ${percent(figures[key])}`)),
    ),
    html(
      "dl",
      { class: "shares" },
      ...PARTS.flatMap(([key, , words]) => pair(words, figure(figures[key], percent(figures[key]), `${name}.${key}`))),
    ),
    html(
      "dl",
      { class: "facts" },
      ...pair("MFU", figure(figures.mfu, percent(figures.mfu), `${name}.mfu`)),
      ...pair(
        "TFLOP/s per chip",
        figure(figures.tflops_per_chip, plain(figures.tflops_per_chip, 3), `${name}.tflops_per_chip`),
      ),
      ...pair(
        "peak memory",
        figure(figures.peak_memory_bytes, bytes(figures.peak_memory_bytes), `${name}.peak_memory_bytes`),
      ),
      ...pair("sent per step", figure(figures.bytes_sent, bytes(figures.bytes_sent), `${name}.bytes_sent`)),
      ...pair(
        "received per step",
        figure(figures.bytes_received, bytes(figures.bytes_received), `${name}.bytes_received`),
      ),
    ),
  ];
}

function rate(pool, words, key, figures) {
  return html(
    "div",
    { class: `rate ${words}` },
    html("span", { class: "value" }, figure(figures[key], count(figures[key]), `${pool}.${key}`)),
    html("span", { class: "aside" }, `${words}, tokens/s`),
  );
}

/** Actual inside capacity, on one scale for all pools. */
function gauge(figures, most) {
  const [outer, inner] = [html("div", { class: "gauge-capacity" }), html("div", { class: "gauge-actual" })];
  outer.style.width = `${(100 * figures.capacity_tokens_per_s) / most}%`;
  inner.style.width = `${(100 * figures.tokens_per_s) / most}%`;
  return html("div", { class: "gauge", title: "actual within capacity; one scale for all pools" }, outer, inner);
}

function pair(words, value) {
  return [html("dt", {}, words), html("dd", {}, value)];
}

function shares(figures) {
  return PARTS.map(([key, , words]) => `${words} ${percent(figures[key])}`).join(", ");
}
