// What happened beside the steps, newest first.

import { fill, heading, html } from "./dom.js";
import { clock, plain } from "./format.js";

const BAD = ["failed", "lost", "peer_lost", "rank_lost", "exited", "drift"];
const WARN = ["slow", "overrun", "alert", "stalled", "skipped", "warning"];

export function showEvents(place, { events }) {
  fill(
    place,
    heading("Events"),
    events.length
      ? html("ol", { class: "events" }, ...[...events].reverse().map(row))
      : html("p", { class: "quiet" }, "none yet"),
  );
}

function row(event) {
  const where = event.rank ?? event.pool;
  return html(
    "li",
    { class: tone(event.kind), "data-seq": event.seq },
    html("time", { datetime: new Date(event.time * 1000).toISOString() }, clock(event.time)),
    html("strong", {}, event.kind.replaceAll("_", " ")),
    where ? html("span", { class: "rank" }, where) : null,
    event.step === null || event.epoch === -1 ? null : html("span", { class: "quiet" }, `step ${event.step}`),
    html("span", { class: "quiet details" }, details(event.data)),
  );
}

/** What an event says of itself; of nested data only an error's message, for the rest is for programs. */
function details(data) {
  return Object.entries(data ?? {})
    .map(([key, value]) => [key.replaceAll("_", " "), typeof value === "object" ? value?.message : value])
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([key, value]) => `${key} ${typeof value === "number" ? plain(value) : value}`)
    .join(", ");
}

function tone(kind) {
  if (BAD.some((word) => kind.includes(word))) return "bad";
  return WARN.some((word) => kind.includes(word)) ? "warn" : "";
}
