// The time of each stage in the last step, by its slowest rank; of equal pipelines that of the slowest.

import { figure, fill, heading, html, legend, part } from "./dom.js";
import { seconds } from "./format.js";

const PARTS = [
  ["forward_s", "forward", "forward"],
  ["backward_s", "backward", "backward"],
  ["weight_s", "weight", "weight gradient"],
  ["wait_s", "wait", "wait"],
];

export function showStages(place, { run, stages }) {
  place.hidden = !run || !stages?.length;
  if (place.hidden) return;
  const parts = PARTS.filter(([key]) => stages.some((stage) => stage[key] > 0));
  const longest = Math.max(...stages.map(total));
  fill(
    place,
    heading("Stages", legend(parts.map(([, kind, words]) => [kind, words]))),
    html("div", { class: "stages" }, ...stages.map((stage) => row(stage, parts, longest, run))),
  );
}

function row(stage, parts, longest, run) {
  const name = stage.name;
  const color = run.pools.find((pool) => pool.name === stage.pool)?.color ?? 0;
  const rank = stage.slowest_rank;
  const slow = run.slow_ranks.includes(rank);
  const bar = html(
    "div",
    { class: "bar" },
    ...parts.map(([key, kind, words]) => part(kind, stage[key], `${words} ${seconds(stage[key])}`)),
  );
  bar.style.width = `${(100 * total(stage)) / (longest || 1)}%`;
  return html(
    "div",
    { class: `stage pool-${color}`, "data-stage": name },
    html(
      "div",
      { class: "stage-name" },
      html("span", { class: "swatch pool-color" }),
      html("strong", {}, stage.pool),
      html("span", { class: "quiet" }, placeOf(name)),
    ),
    html("div", { class: "stage-bar" }, bar),
    html(
      "div",
      { class: "stage-times" },
      ...parts.map(([key, kind]) =>
        html(
          "span",
          {},
          html("span", { class: `swatch ${kind}` }),
          figure(stage[key], seconds(stage[key]), `stage ${name}.${key}`),
        ),
      ),
    ),
    html(
      "div",
      { class: `slowest ${slow ? "bad" : ""}` },
      slow ? "slow rank " : "slowest rank ",
      html("span", { class: "rank", "data-figure": `stage ${name}.slowest_rank` }, rank),
      stage.host ? html("span", { class: "quiet" }, ` on ${stage.host}`) : null,
    ),
  );
}

/** Such as "pipelines 0-7, stage 1" of 0-7.1. */
function placeOf(name) {
  const [pipelines, stage] = name.split(".");
  return `pipeline${/^\d+$/.test(pipelines) ? "" : "s"} ${pipelines}, stage ${stage}`;
}

function total(stage) {
  return PARTS.reduce((sum, [key]) => sum + stage[key], 0);
}
