// The plan as a picture: a row per pipeline, equal ones once, as tall as their share of the batch; in it the units from
// first to last, in the colours of the pools that hold them.

import { fill, heading, html } from "./dom.js";

const MOST_LETTERS = 40;

export function showPlan(place, { run, plan }) {
  place.hidden = !run || !plan?.pipelines?.length;
  if (place.hidden) return;
  const batch = plan.pipelines.reduce((sum, pipeline) => sum + pipeline.share, 0);
  const units = Math.max(...plan.pipelines.flatMap((pipeline) => chunks(pipeline).map((chunk) => chunk.stop)));
  fill(
    place,
    heading("Plan", html("p", { class: "quiet" }, `epoch ${plan.epoch ?? 0} · ${plan.schedule} · ${units} units`)),
    html("div", { class: "plan" }, ...plan.equal.map((numbers) => row(plan.pipelines[numbers[0]], numbers, batch, units, run))),
    html(
      "p",
      { class: "quiet note" },
      "Each row is a pipeline, or several equal ones, as tall as its share of the batch. E embedding, A attention, M MLP, H norm and head.",
    ),
    ...plan.idle.map((words) => html("p", { class: "note bad" }, words)),
  );
}

function row(pipeline, numbers, batch, units, run) {
  const blocks = html("div", { class: "blocks" }, ...chunks(pipeline).map((chunk) => block(chunk, units, run)));
  blocks.style.height = `${Math.max(64, Math.round((220 * numbers.length * pipeline.share) / batch))}px`;
  return html(
    "div",
    { class: "pipeline", "data-pipeline": numbers[0] },
    html(
      "div",
      { class: "share" },
      html("strong", {}, `${pipeline.share}${numbers.length > 1 ? ` x ${numbers.length}` : ""}`),
      ` of ${batch}`,
      html("span", { class: "quiet" }, `sequences, ${pipeline.micro_batch ?? 1} at a time`),
    ),
    blocks,
  );
}

function block(chunk, units, run) {
  const { stage, start, stop } = chunk;
  const color = run.pools.find((pool) => pool.name === stage.pool)?.color ?? 0;
  const words = `units ${start}-${stop - 1}`;
  const element = html(
    "div",
    { class: `block pool-${color}`, title: `${stage.pool}, tp ${stage.tp ?? 1}, ${words}` },
    html("strong", {}, stage.pool),
    html("span", {}, `tp ${stage.tp ?? 1} · ${words}`),
    html("div", { class: "units" }, ...cells(start, stop, units)),
  );
  element.style.flexGrow = String(stop - start);
  return element;
}

function cells(start, stop, units) {
  if (units > MOST_LETTERS) return [];
  return Array.from({ length: stop - start }, (_, offset) => html("span", {}, letter(start + offset, units)));
}

function letter(unit, units) {
  if (unit === 0) return "E";
  if (unit === units - 1) return "H";
  return unit % 2 ? "A" : "M";
}

/** A pipeline's chunks in model order; a stage writes its units as one range or as a list of them. */
function chunks(pipeline) {
  return pipeline.stages
    .flatMap((stage) => ranges(stage.units).map(([start, stop]) => ({ stage, start, stop })))
    .sort((a, b) => a.start - b.start);
}

function ranges(units) {
  return Array.isArray(units[0]) ? units : [units];
}
