// The server's stream of what changed, section by section. It comes back by itself when the server does.

const SECTIONS = ["run", "record", "stages", "evaluations", "points", "plan", "timeline", "ledger", "events"];
const AGAIN_AFTER_MS = 1000;

/** Calls `onSection(name, content)` for everything that comes, and `onState(connected)` when that changes. */
export function follow(address, onSection, onState) {
  const source = new EventSource(address);
  source.onopen = () => onState(true);
  source.onerror = () => {
    onState(false);
    if (source.readyState === EventSource.CLOSED) {
      // refused for good, as by a proxy whose server is down
      setTimeout(() => follow(address, onSection, onState), AGAIN_AFTER_MS);
    }
  };
  for (const name of SECTIONS) {
    source.addEventListener(name, (event) => onSection(name, JSON.parse(event.data)));
  }
}
