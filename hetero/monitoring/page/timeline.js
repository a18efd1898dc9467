// The last traced step: a row per rank, its actions and waits over time.

import { ticks } from "./chart.js";
import { fill, heading, html, legend, svg } from "./dom.js";
import { seconds } from "./format.js";

const KINDS = [
  [/^F\b/, "forward", "forward"],
  [/^[BI]\b/, "backward", "backward"],
  [/^W\b/, "weight", "weight gradient"],
  [/^SYNC\b/, "sync", "sync"],
  [/^STEP\b/, "step", "step"],
  [/^wait\b/, "wait", "wait"],
];
const LANE = 20;
const GAP = 10;
const LABEL = 92;
const AXIS = 22;
const NARROWEST = 560;

export function showTimeline(place, { run, timeline }) {
  place.hidden = !run || !timeline?.ranks?.length;
  if (place.hidden) return;
  const kinds = KINDS.filter(([pattern]) =>
    timeline.ranks.some((rank) => rank.spans.some(([name]) => pattern.test(name))),
  );
  fill(
    place,
    heading(`Timeline of step ${timeline.step}`, legend(kinds.map(([, kind, words]) => [kind, words]))),
    html("div", { class: "scroll" }, picture(timeline, run, Math.max(place.clientWidth - 40, NARROWEST))),
    html(
      "p",
      { class: "quiet note" },
      timeline.hidden ? `${timeline.hidden} more ranks are not shown. ` : "",
      "Each host by its own clock. trace.json opens in Perfetto for a closer look.",
    ),
  );
}

function picture({ ranks, seconds: length }, run, width) {
  const x = (time) => LABEL + (time / (length || 1)) * (width - LABEL - 4);
  let top = 0;
  const lanes = ranks.flatMap((rank, index) => {
    top += index === 0 ? 0 : LANE + (poolOf(rank) === poolOf(ranks[index - 1]) ? 0 : GAP);
    return lane(rank, top, x, run);
  });
  const height = top + LANE + AXIS;
  return svg(
    "svg",
    {
      class: "timeline",
      role: "img",
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      "aria-label": `actions of ${ranks.length} ranks over ${seconds(length)}`,
    },
    ...lanes,
    ...axis(length, x, height),
  );
}

function lane(rank, top, x, run) {
  const color = run.pools.find((pool) => pool.name === poolOf(rank))?.color ?? 0;
  return [
    svg("rect", { class: `pool-mark pool-${color}`, x: 0, y: top + 2, width: 3, height: LANE - 4, rx: 1.5 }),
    svg("text", { class: "tick", x: 9, y: top + LANE / 2 + 4 }, rank.rank),
    ...rank.spans.map(([name, start, length]) =>
      svg(
        "rect",
        {
          class: `span ${kindOf(name)}`,
          x: x(start).toFixed(1),
          y: top + 2,
          height: LANE - 4,
          rx: 1.5,
          width: Math.max(x(start + length) - x(start) - 0.5, 0.6).toFixed(1),
        },
        svg("title", {}, `${rank.rank} ${name}: ${seconds(length)}`),
      ),
    ),
  ];
}

function axis(length, x, height) {
  return ticks(0, length, 5).map((time) => {
    const anchor = time === 0 ? "start" : x(time) > x(length) - 24 ? "end" : "middle";
    return svg("text", { class: "tick", x: x(time), y: height - 5, "text-anchor": anchor }, seconds(time));
  });
}

function poolOf(rank) {
  return rank.rank.slice(0, rank.rank.lastIndexOf(":"));
}

function kindOf(name) {
  return KINDS.find(([pattern]) => pattern.test(name))?.[1] ?? "other";
}
