"use strict";
// Shows what /emulator/executions says, again every second. Data goes into the page as text only, never as HTML.

const COLORS = {
  RUNNING: "#2f7ed8", IN_PROGRESS: "#2f7ed8", SCHEDULED: "#b58900", COMPLETED: "#2e9e5b",
  COMPLETED_WITH_ERRORS: "#c98a00", SKIPPED: "#8a8a8a", CANCELED: "#8a8a8a", TERMINATED: "#8a8a8a",
  FAILED: "#d33c3c", FAILED_WITH_TERMINAL_ERROR: "#d33c3c", TIMED_OUT: "#d33c3c",
};
const WIDTH = 200, HEIGHT = 68, GAP_X = 60, GAP_Y = 20;
let chosen = location.hash.slice(1) || null;  // the execution that is shown
let chosenTask = null;                        // key of the task whose input and output are shown
const shown = new Map();                      // by part of the page: what it was last made of

const byId = (id) => document.getElementById(id);

function make(name, attributes = {}, ...children) {
  const svg = ["svg", "g", "rect", "text", "path", "title"].includes(name);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Make a part of the page anew if it changes, so that a selection and the keyboard's focus stay. */
function show(part, state, children) {
  const text = JSON.stringify(state);
  if (shown.get(part) === text) return;
  shown.set(part, text);
  const focused = document.activeElement?.dataset.key;
  byId(part).replaceChildren(...children());
  if (focused) byId(part).querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

function choose(execution, task) {
  [chosen, chosenTask] = [execution, task];
  if (location.hash.slice(1) !== execution) location.hash = execution;
  refresh();
}

function duration(start, end, now) {
  if (!start) return "";
  const seconds = ((end ?? now) - start) / 1000;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

/** The run in Airflow that started an execution, if its metadata says so: an address of http, and no script. */
function airflowLink(metadata) {
  const url = metadata.airflow_url ?? "";
  return /^https?:\/\//i.test(url)
    ? [make("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, "The task in Airflow")] : [];
}

function showList(list) {
  byId("summary").textContent =
    `This is not CDF. Executions: ${list.total}, running: ${list.running}. ${new Date(list.now).toLocaleString()}`;
  const searched = byId("search").value.trim();
  show("executions", [list, chosen, searched], () => !list.items.length && searched
    ? [make("p", {}, `No execution has '${searched}'.`)] : list.items.map((execution) => {
    const dot = make("span", { class: "dot", style: `background:${COLORS[execution.status] ?? "#888"}` });
    const took = duration(execution.startTime, execution.endTime, list.now);
    const button = make("button", { "aria-pressed": execution.id === chosen, "data-key": execution.id },
      dot, `${execution.workflowExternalId} (${execution.version})`,
      make("small", {}, `${execution.status} ${took || "waits its turn"}`), make("small", {}, execution.id));
    button.onclick = () => choose(execution.id, null);
    return button;
  }));
}

/** Columns by the longest way to a task. Nested tasks come after their parent, and before what waits for it. */
function layout(plan) {
  const byKey = new Map(plan.map((task) => [task.key, task]));
  const children = (task) => plan.filter((other) => other.parent === task.externalId && !task.parent);
  for (const task of plan) {
    const siblings = task.dependsOn.map((name) => byKey.get(`${task.parent ?? ""}/${name}`)).filter(Boolean);
    task.before = siblings.flatMap((other) => {
      const inner = children(other);
      const last = inner.filter((one) => !inner.some((another) => another.dependsOn.includes(one.externalId)));
      return last.length ? last : [other];
    });
    const parent = task.parent && !siblings.length ? byKey.get(`/${task.parent}`) : null;
    if (parent) { task.before.push(parent); task.nested = true; }
  }
  const depth = (task) => task.depth ??= Math.max(-1, ...task.before.map(depth)) + 1;
  const taken = [];  // by column: the rows in use, by a task or by a line that passes on its way to a later column
  for (const task of [...plan].sort((one, other) => depth(one) - depth(other))) {
    const column = depth(task);
    task.row = task.before[0]?.row ?? 0;
    while (taken[column]?.has(task.row)) task.row += 1;
    const end = Math.max(column + 1, ...plan.filter((other) => other.before.includes(task)).map(depth));
    for (let passed = column; passed < end; passed += 1) (taken[passed] ??= new Set()).add(task.row);
    task.x = column * (WIDTH + GAP_X) + 2;
    task.y = task.row * (HEIGHT + GAP_Y) + 2;
  }
  const rows = Math.max(0, ...plan.map((task) => task.row)) + 1;
  return [taken.length * (WIDTH + GAP_X), rows * (HEIGHT + GAP_Y)];
}

function graph(plan, now) {
  const [width, height] = layout(plan);
  const svg = make("svg", { width, height, role: "group", "aria-label": "Task graph" });
  for (const task of plan) for (const from of task.before) {
    const x1 = from.x + WIDTH, y1 = from.y + HEIGHT / 2, x2 = task.x, y2 = task.y + HEIGHT / 2, bend = GAP_X / 2;
    svg.append(make("path", { class: task.nested ? "nested" : "",
      d: `M${x1},${y1} H${x2 - GAP_X} C${x2 - bend},${y1} ${x2 - bend},${y2} ${x2},${y2}` }));
  }
  for (const task of plan) {
    const last = task.attempts.at(-1);
    const status = last?.status ?? "not started";
    const took = duration(last?.startTime, last?.endTime, now);
    const tries = task.attempts.length > 1 ? `${took}, attempt ${task.attempts.length}` : took;
    const name = task.externalId.length > 20 ? `${task.externalId.slice(0, 19)}…` : task.externalId;
    const node = make("g", { role: "button", tabindex: 0, "aria-pressed": task.key === chosenTask,
      "data-key": task.key, "data-task": task.externalId, "data-status": status,
      transform: `translate(${task.x},${task.y})` },
      make("title", {}, `${task.externalId} (${task.type})`),
      make("rect", { width: WIDTH, height: HEIGHT }),
      make("rect", { width: 6, height: HEIGHT, style: `fill:${COLORS[status] ?? "#8884"};stroke:none` }),
      make("text", { class: "name", x: 14, y: 20 }, name), make("text", { x: 14, y: 39 }, status),
      make("text", { x: 14, y: 57 }, tries));
    node.onclick = () => choose(chosen, task.key);
    node.onkeydown = (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      node.onclick();
    };
    svg.append(node);
  }
  return svg;
}

function taskDetails(task) {
  return task.attempts.map((attempt, index) => [
    make("h3", {}, `${task.externalId} (${task.type}), attempt ${index + 1}: ${attempt.status} `
      + (attempt.endTime ? duration(attempt.startTime, attempt.endTime) : "")),
    make("small", {}, attempt.id), attempt.reasonForIncompletion ?? "",
    make("h3", {}, "Input"), make("pre", { class: "input" }, JSON.stringify(attempt.input, null, 2)),
    make("h3", {}, "Output"), make("pre", { class: "output" }, JSON.stringify(attempt.output, null, 2)),
  ]).reverse().flat();  // the latest attempt first
}

function showExecution(execution, now) {
  const task = execution.plan.find((one) => one.key === chosenTask);
  const running = execution.status === "RUNNING" ? now : null;
  show("head", [execution, running], () => [
    make("h2", {}, `${execution.workflowExternalId} (${execution.version}): ${execution.status} `
      + duration(execution.startTime, execution.endTime, now)),
    make("small", {}, execution.id), execution.reasonForIncompletion ?? "", ...airflowLink(execution.metadata)]);
  show("graph", [execution.plan, running, chosenTask], () => [graph(structuredClone(execution.plan), now)]);
  show("task", task ?? [execution.id, execution.input, execution.metadata], () => task
    ? (task.attempts.length ? taskDetails(task) : [`${task.externalId} has not started.`])
    : ["Click a task to see its input and output.",
       make("h3", {}, "Input of the execution"), make("pre", {}, JSON.stringify(execution.input, null, 2)),
       make("h3", {}, "Metadata"), make("pre", {}, JSON.stringify(execution.metadata, null, 2))]);
}

async function refresh() {
  try {
    const search = byId("search").value;
    const list = await (await fetch(`/emulator/executions?search=${encodeURIComponent(search)}`)).json();
    if (search !== byId("search").value) return;  // more was typed meanwhile, which asks again
    chosen ??= list.items[0]?.id ?? null;
    const asked = chosen;
    const answer = asked && await fetch(`/emulator/executions/${encodeURIComponent(asked)}`);
    if (asked !== chosen) return;  // another one was chosen meanwhile
    if (answer && !answer.ok) chosen = null;  // forgotten, or from an emulator that is gone: the newest instead
    const execution = answer && answer.ok ? await answer.json() : null;
    showList(list);
    if (execution) showExecution(execution, list.now);
  } catch (error) {
    byId("summary").textContent = `The emulator does not answer: ${error.message}`;
  }
}

addEventListener("hashchange", () => {
  const wanted = location.hash.slice(1);
  if (wanted && wanted !== chosen) choose(wanted, null);
});
byId("search").addEventListener("input", refresh);
refresh();
setInterval(refresh, 1000);
