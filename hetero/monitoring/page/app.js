// The page: holds the newest of each section and lets the views that read it draw it.

import { byId } from "./dom.js";
import { Curves } from "./curves.js";
import { showEvents } from "./events.js";
import { follow } from "./feed.js";
import { showFigures, showFooter, showHeader } from "./header.js";
import { showLedger } from "./ledger.js";
import { showLinks } from "./links.js";
import { showPlan } from "./plan.js";
import { showPools } from "./pools.js";
import { showStages } from "./stages.js";
import { showTimeline } from "./timeline.js";

const page = {
  connected: false,
  run: null,
  record: null,
  stages: null,
  evaluations: [],
  plan: null,
  timeline: null,
  ledger: null,
  events: [],
};
const curves = new Curves(byId("loss"), byId("throughput"));

const VIEWS = [
  { id: "header", reads: ["run", "record", "connected"], show: showHeader },
  { id: "figures", reads: ["run", "record", "evaluations"], show: showFigures },
  { id: "pools", reads: ["run", "record"], show: showPools },
  { id: "stages", reads: ["run", "stages"], show: showStages },
  { id: "links", reads: ["run", "record"], show: showLinks },
  { id: "plan", reads: ["run", "plan"], show: showPlan },
  { id: "timeline", reads: ["run", "timeline", "width"], show: showTimeline },
  { id: "ledger", reads: ["run", "ledger"], show: showLedger },
  { id: "events", reads: ["events"], show: showEvents },
  { id: "footer", reads: ["run", "record"], show: showFooter },
];

const changed = new Set();

function change(name, content) {
  if (name === "points") curves.add(content);
  else page[name] = content;
  if (name === "run") curves.name(content.pools);
  if (name === "evaluations") curves.evaluations = content;
  if (!changed.size) requestAnimationFrame(draw);
  changed.add(name);
}

function draw() {
  for (const view of VIEWS) {
    if (view.reads.some((name) => changed.has(name))) view.show(byId(view.id), page);
  }
  if (["points", "run", "evaluations"].some((name) => changed.has(name))) curves.draw();
  changed.clear();
}

addEventListener("resize", () => change("width", innerWidth));
follow("stream", change, (connected) => change("connected", connected));
