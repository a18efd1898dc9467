// What crosses between pools, each direction for itself: bytes, and how long the step stood still for them.

import { figure, fill, heading, html, legend } from "./dom.js";
import { bytes, percent, seconds } from "./format.js";

export function showLinks(place, { run, record }) {
  const links = record?.links ?? [];
  place.hidden = !run || !links.length;
  if (place.hidden) return;
  const [real, emulated] = [false, true].map((kind) => links.filter((link) => isEmulated(link, run) === kind));
  fill(place, ...group("Links", real, run, record), ...group("Emulated links", emulated, run, record));
}

function group(words, links, run, { step_s }) {
  if (!links.length) return [];
  const key = legend([["bridge-wait", "exposed: part of the step that a rank stood still for it"]]);
  return [heading(words, key), html("div", { class: "links" }, ...links.map((link) => row(link, run, step_s)))];
}

function row(link, run, step_s) {
  const name = `link ${link.source} ${link.target}`;
  const share = step_s ? link.exposed_s / step_s : 0;
  const shown = (key, format) => figure(link[key], format(link[key]), `${name}.${key}`);
  return html(
    "div",
    { class: "link", "data-link": `${link.source} ${link.target}` },
    html("div", { class: "link-name" }, end(link.source, run), html("span", { class: "quiet" }, "to"), end(link.target, run)),
    bar(share),
    html(
      "div",
      { class: "link-figures" },
      html("span", {}, shown("bytes_sent", bytes), " a step"),
      html("span", {}, shown("bytes_per_s", bytes), "/s"),
      html("span", {}, "exposed ", shown("exposed_s", seconds), ` (${percent(share)} of the step)`),
    ),
  );
}

function end(pool, run) {
  const color = run.pools.find(({ name }) => name === pool)?.color ?? 0;
  return html("strong", { class: `pool-${color}` }, html("span", { class: "swatch pool-color" }), pool);
}

function bar(share) {
  const inner = html("span", { class: "part bridge-wait" });
  inner.style.flex = `0 0 ${100 * Math.min(share, 1)}%`;
  return html("div", { class: "bar", role: "img", "aria-label": `exposed ${percent(share)} of the step` }, inner);
}

/** A link is as real as both its ends. */
function isEmulated(link, run) {
  return run.pools.some((pool) => pool.emulated && (pool.name === link.source || pool.name === link.target));
}
