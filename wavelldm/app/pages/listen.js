// The page of a listening test. It works with the server of `wavelldm listen serve`, and alone on any web host.
// An answer is kept in this browser at once; with a server it is sent at once too, and again until it is acknowledged.
"use strict";

const TEST = window.TEST, SERVED = window.SERVED === true;
const KEY = `wavelldm-listen:${TEST.id}`;
const PLAY = "M4 2v14l12-7z", PAUSE = "M3 2h4v14H3zm8 0h4v14h-4z";
const SCALE = [[5, "Excellent"], [4, "Good"], [3, "Fair"], [2, "Poor"], [1, "Bad"]];
const BANDS = ["Bad", "Poor", "Fair", "Good", "Excellent"];
const QUESTION = {
  acr: "How good is this sound?",
  mushra: "How close does each come to the reference?",
  ab: "Which sounds better?",
  abx: "Is X the same as A, or as B?",
};

// --- what is kept

let me = load();

function load() {
  let kept = null;
  try { kept = JSON.parse(localStorage.getItem(KEY)); } catch { /* private windows may have no storage */ }
  const fresh = { token: null, id: random(16), seed: null, name: "", answers: {}, queue: [], trained: false };
  return kept && typeof kept === "object" ? { ...fresh, ...kept } : fresh;
}

function keep() {
  try { localStorage.setItem(KEY, JSON.stringify(me)); } catch { /* see above; the queue then lives in this tab */ }
}

function forget() {
  try { localStorage.removeItem(KEY); } catch { /* see above */ }
  me = load();
}

function random(letters) {
  const bytes = crypto.getRandomValues(new Uint8Array(letters / 2));
  return [...bytes].map((b) => b.toString(16).padStart(2, "0")).join("");
}

function put(trial, item, value) {
  const of = (me.answers[trial] ??= {});
  if (of[item] === value) return; // a double click is one answer
  of[item] = value;
  if (SERVED) { // a slider that still moves replaces its own answer, unless that is on its way
    me.queue = me.queue.filter((a) => a.trial !== trial || a.item !== item || onTheWay.has(a.client));
  }
  me.queue.push({ client: random(16), trial, item, value });
  keep();
  if (TEST.kind === "mushra" && item !== "done") setTimeout(flush, 200);
  else flush();
}

// --- to the server and back

let sending = false, wait = 1000, timer = 0, onTheWay = new Set();

async function api(place, body) {
  const headers = { "Content-Type": "application/json" };
  if (me.token) headers.Authorization = `Bearer ${me.token}`;
  const post = body === undefined ? {} : { method: "POST", body: JSON.stringify(body), keepalive: true };
  const answer = await fetch(`api/${place}`, { ...post, headers, signal: AbortSignal.timeout(10000) });
  const facts = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(facts.error), { status: answer.status });
  return facts;
}

async function flush() {
  showSaved();
  if (!SERVED || sending || !me.token || !me.queue.length) return;
  sending = true;
  clearTimeout(timer);
  let again = false;
  try {
    const answers = me.queue.slice(0, 100);
    onTheWay = new Set(answers.map((a) => a.client));
    const { stored } = await api("answers", { answers });
    const gone = new Set(stored);
    me.queue = me.queue.filter((a) => !gone.has(a.client));
    keep();
    wait = 1000;
    again = me.queue.length > 0;
  } catch (error) {
    if ([400, 401, 403, 409].includes(error.status)) {
      trouble(`The server does not take your answers: ${error.message}.`);
    }
    timer = setTimeout(flush, wait);
    wait = Math.min(wait * 2, 15000);
  }
  sending = false;
  onTheWay = new Set();
  showSaved();
  if (again) flush();
}

addEventListener("online", () => { wait = 1000; flush(); });
addEventListener("beforeunload", (event) => { if (SERVED && me.queue.length) event.preventDefault(); });

function showSaved() {
  const note = document.getElementById("saved"), n = me.queue.length, waits = SERVED && n > 0 && wait > 1000;
  note.classList.toggle("waits", waits);
  if (waits) note.textContent = `${n} ${n === 1 ? "answer waits" : "answers wait"} for the connection`;
  else note.textContent = Object.keys(me.answers).length ? (SERVED ? (n ? "saving" : "all saved") : "kept here") : "";
  const ending = document.getElementById("ending");
  if (ending) ending.textContent = endingText();
}

// --- order: the same for a listener who comes back, another for each listener

function numbers(seed) { // mulberry32
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function shuffled(list, next) {
  const out = [...list];
  for (let i = out.length - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1));
    [out[i], out[j]] = [out[j], out[i]];
  }
  return out;
}

function plan() {
  const next = numbers(me.seed);
  const ready = (trial) => {
    const stimuli = shuffled(trial.stimuli, next);
    return { ...trial, stimuli, x: stimuli[Math.floor(next() * stimuli.length)] };
  };
  const counted = shuffled(TEST.trials.filter((t) => !t.practice), next).map(ready);
  return { counted, practice: TEST.trials.filter((t) => t.practice).map(ready) };
}

// --- sound

const sounds = new Map();
let context = null, playing = null; // {name, source, gain, start, length, offset, loop, done}

function sound(name) {
  if (!sounds.has(name)) {
    const loading = fetch(`audio/${name}.wav`)
      .then((answer) => { if (!answer.ok) throw new Error("missing"); return answer.arrayBuffer(); })
      .then((data) => audio().decodeAudioData(data));
    loading.catch(() => sounds.delete(name)); // so that it is tried again
    sounds.set(name, loading);
  }
  return sounds.get(name);
}

function audio() { return (context ??= new AudioContext()); }

function position() {
  if (!playing) return 0;
  const at = audio().currentTime - playing.start + playing.offset;
  return playing.loop ? at % playing.length : Math.min(at, playing.length);
}

let asked = 0;

async function play(name, { from = 0, loop = false, done = () => {} } = {}) {
  const mine = ++asked;
  await audio().resume();
  let buffer;
  try { buffer = await sound(name); } catch {
    trouble("The sound could not be loaded. Check the connection and press play again.");
    return;
  }
  if (mine !== asked) return; // another one was asked for meanwhile
  silence();
  calm();
  const source = audio().createBufferSource(), gain = audio().createGain(), now = audio().currentTime;
  Object.assign(source, { buffer, loop });
  source.connect(gain).connect(audio().destination);
  gain.gain.setValueAtTime(0, now);
  gain.gain.linearRampToValueAtTime(1, now + 0.01);
  source.start(now, from % buffer.duration);
  playing = { name, source, gain, start: now, length: buffer.duration, offset: from % buffer.duration, loop, done };
  source.onended = () => { if (playing?.source === source) { playing = null; done(); redraw(); } };
  redraw();
}

function silence() {
  if (!playing) return;
  const { source, gain } = playing, now = audio().currentTime;
  playing = null;
  gain.gain.cancelScheduledValues(now);
  gain.gain.setValueAtTime(gain.gain.value, now);
  gain.gain.linearRampToValueAtTime(0, now + 0.02);
  source.stop(now + 0.03);
}

function stop() { asked++; silence(); redraw(); }

// --- the screen

const screen = document.getElementById("screen");
let redraw = () => {}, keys = () => {};

function el(tag, attributes = {}, ...inside) { // text goes in as text, never as HTML
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && typeof value !== "string") node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...inside);
  return node;
}

function icon(path) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const shape = document.createElementNS("http://www.w3.org/2000/svg", "path");
  svg.setAttribute("viewBox", "0 0 18 18");
  svg.setAttribute("aria-hidden", "true");
  shape.setAttribute("d", path);
  svg.append(shape);
  return svg;
}

function button(label, kind, click, more = {}) {
  return el("button", { type: "button", class: kind, onclick: click, ...more }, ...[label].flat());
}

function show(...inside) {
  asked++;
  silence();
  redraw = () => {};
  keys = () => {};
  screen.replaceChildren(el("div", { class: "card" }, ...inside, el("p", { class: "error", id: "trouble", role: "alert" })));
  scrollTo(0, 0);
  screen.focus({ preventScroll: true });
  showSaved();
}

function trouble(text) {
  const place = document.getElementById("trouble");
  if (place) place.textContent = text;
}

function calm() { trouble(""); }

function progress(done, all) {
  const track = document.getElementById("track");
  track.firstElementChild.style.width = `${all ? (100 * done) / all : 0}%`;
  track.setAttribute("aria-valuenow", done);
  track.setAttribute("aria-valuemax", all);
}

document.addEventListener("click", (event) => { // so that the space bar plays, after a click on a button
  if (event.detail > 0) event.target.closest("button")?.blur();
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=text]")) return;
  if (event.target.matches("button") && (event.key === " " || event.key === "Enter")) return;
  if (event.repeat && (event.key === "Enter" || event.key === " ")) return;
  keys(event);
});

function welcome() {
  const counted = TEST.trials.filter((t) => !t.practice).length;
  const minutes = Math.max(1, Math.round((counted * (TEST.kind === "mushra" ? 75 : TEST.kind === "acr" ? 10 : 20)) / 60));
  const back = Object.keys(me.answers).length > 0;
  const what = {
    acr: "You hear one sound at a time and say how good it is, from 1 (bad) to 5 (excellent).",
    mushra: "You hear several versions of a sound and rate each against the reference. One of them is the reference.",
    ab: "You hear two versions of a sound, A and B, and say which is better.",
    abx: "You hear A, B and X. X is one of the two. You say which.",
  }[TEST.kind];
  const name = el("input", { type: "text", id: "name", maxlength: "80", autocomplete: "off", value: me.name });
  const start = button(back ? "Go on" : "Start", "main", async () => {
    start.disabled = true;
    try { await enter(name.value); } catch (error) {
      start.disabled = false;
      trouble(error.status ? `${error.message}.` : "The server does not answer. Check the connection and try again.");
    }
  }, { id: "start" });
  const sample = TEST.trials.find((t) => t.practice) ?? TEST.trials[0];
  const volume = button("Play a sound", "plain", () => (playing ? stop() : play(sample.stimuli[0])), { id: "volume" });
  show(
    el("h2", {}, back ? "Welcome back" : "Before you start"),
    el("p", { class: "soft" }, `${counted} questions, about ${minutes} ${minutes === 1 ? "minute" : "minutes"}.`),
    el("p", {}, what),
    el("ol", { class: "how" },
      el("li", {}, "Sit in a quiet place and use headphones."),
      el("li", {}, "Set a comfortable volume now, and leave it."),
      el("li", {}, "There are no right answers: say what you hear."),
      el("li", {}, SERVED ? "Every answer is saved at once. You can close the page and come back."
        : "Your answers stay in this browser. At the end you save them as a file and send it back.")),
    el("div", { class: "row" }, volume),
    el("label", { class: "name" }, "Your name, if you like", name),
    el("div", { class: "row" }, start),
  );
  redraw = () => { volume.textContent = playing ? "Stop" : "Play a sound"; };
}

async function enter(name) {
  if (SERVED) {
    if (!me.token) me.token = (await api("join", { name })).token;
    else if (name !== me.name) await api("name", { name });
    const known = await api("me");
    me.seed = known.seed;
    me.name = known.name;
  } else {
    me.name = name.slice(0, 80);
    me.seed ??= parseInt(random(8), 16);
  }
  keep();
  flush();
  next();
}

function next() {
  const { counted, practice } = plan();
  if (!me.trained) return train(practice, 0);
  const at = counted.findIndex((t) => !me.answers[t.id]?.done);
  progress(at < 0 ? counted.length : at, counted.length);
  if (at < 0) return end(counted.length);
  for (const later of counted.slice(at, at + 3)) later.stimuli.forEach((s) => sound(s).catch(() => {}));
  ask(counted[at], `Question ${at + 1} of ${counted.length}`, (item, value) => put(counted[at].id, item, value), next);
}

function train(practice, at) {
  if (at >= practice.length) {
    show(
      el("h2", {}, "That was the practice"),
      el("p", {}, "From now on your answers count."),
      el("div", { class: "row" }, button("Begin", "main", () => { me.trained = true; keep(); next(); }, { id: "begin" })),
    );
    keys = (e) => { if (e.key === "Enter") document.getElementById("begin").click(); };
    return;
  }
  const scratch = {};
  const label = `Practice ${at + 1} of ${practice.length}`;
  ask(practice[at], label, (item, value) => { scratch[item] = value; }, () => train(practice, at + 1), scratch);
}

function ask(trial, label, answer, then, given = me.answers[trial.id] ?? {}) {
  const head = trial.practice ? [el("span", { class: "tag" }, label)] : [el("p", { class: "count" }, label)];
  if (trial.practice) {
    head.push(el("p", { class: "soft" }, "Get to know what there is to hear. This answer does not count."));
  }
  const go = button("Next", "main", () => { if (!go.disabled) { go.disabled = true; answer("done", 1); then(); } }, { id: "next", disabled: true });
  ({ acr: askOne, mushra: askMany, ab: askPair, abx: askPair })[TEST.kind](trial, head, answer, go, given);
}

function foot(go, ...hints) { // a hint: keys, then what they do
  const lines = hints.map(([text, ...names]) => el("span", {}, ...names.flatMap((n) => [el("kbd", {}, n), " "]), text));
  return el("div", { class: "foot" }, el("p", { class: "keys" }, ...lines), go);
}

function player(name, label, heard) {
  const at = el("i", { class: "at" }), small = el("small", {}, "not heard yet"), disc = el("span", { class: "disc" });
  const node = el("button", { type: "button", class: "player", "data-sound": name }, disc,
    el("span", {}, el("b", {}, label), small), at);
  const toggle = () => (playing?.name === name && playing.tag === node ? stop() : begin());
  const begin = async () => {
    await play(name, { done: () => { heard(); node.classList.add("heard"); } });
    if (playing?.name === name) playing.tag = node;
    redraw();
  };
  node.addEventListener("click", toggle);
  const draw = () => {
    const on = playing?.tag === node;
    disc.replaceChildren(icon(on ? PAUSE : PLAY));
    node.classList.toggle("on", on);
    node.setAttribute("aria-label", `${on ? "Stop" : "Play"} ${label}`);
    small.textContent = on ? "playing" : node.classList.contains("heard") ? "heard" : "not heard yet";
    at.style.width = on ? `${(100 * position()) / playing.length}%` : "0";
    return on;
  };
  draw();
  return { node, toggle, draw };
}

function watch(players, more = () => {}) {
  let frame = 0;
  const paint = () => { frame = players.map((p) => p.draw()).some(Boolean) ? requestAnimationFrame(paint) : 0; };
  redraw = () => { cancelAnimationFrame(frame); paint(); more(); };
  redraw();
}

function askOne(trial, head, answer, go, given) {
  const [name] = trial.stimuli;
  let heard = name in given;
  const one = player(name, "Play", () => { heard = true; });
  const buttons = SCALE.map(([value, word]) =>
    button([el("span", {}, String(value)), word], "", () => choose(value), { "data-value": String(value) }));
  const choose = (value) => {
    if (!heard) return trouble("Listen to the whole sound first.");
    calm();
    given[name] = trial.practice ? value : given[name];
    answer(name, value);
    draw(value);
  };
  const draw = (value = given[name]) => {
    buttons.forEach((b, i) => {
      b.disabled = !heard;
      b.setAttribute("aria-pressed", String(SCALE[i][0] === value));
    });
    go.disabled = value === undefined;
  };
  show(...head, el("h2", {}, QUESTION.acr), el("div", { class: "players" }, one.node),
    el("div", { class: "scale", role: "group", "aria-label": QUESTION.acr }, ...buttons),
    foot(go, ["play", "Space"], ["rate", "1", "2", "3", "4", "5"], ["next", "Enter"]));
  watch([one], () => draw(trial.practice ? given[name] : me.answers[trial.id]?.[name]));
  keys = (e) => {
    if (e.key === " ") { e.preventDefault(); one.toggle(); }
    else if (/^[1-5]$/.test(e.key)) choose(Number(e.key));
    else if (e.key === "Enter") go.click();
  };
}

function askPair(trial, head, answer, go, given) {
  const [a, b] = trial.stimuli, abx = TEST.kind === "abx", heard = new Set(given.done ? ["A", "B", "X"] : []);
  const item = abx ? `x:${trial.x}` : "prefer";
  const parts = [["A", a], ["B", b], ...(abx ? [["X", trial.x]] : [])];
  const players = parts.map(([label, name]) => player(name, label, () => { heard.add(label); }));
  const options = abx ? [["X is A", a, "1"], ["X is B", b, "2"]]
    : [["A is better", a, "1"], ["No difference", "same", "0"], ["B is better", b, "2"]];
  let picked = given[item];
  const buttons = options.map(([text, value]) => button(text, "", () => choose(value), { "data-value": text }));
  const all = () => parts.every(([label]) => heard.has(label)) || picked !== undefined;
  const choose = (value) => {
    if (!all()) return trouble(`Listen to ${abx ? "A, B and X" : "both"} to the end first.`);
    calm();
    picked = value;
    answer(item, value);
    draw();
  };
  const draw = () => {
    buttons.forEach((node, i) => {
      node.disabled = !all();
      node.setAttribute("aria-pressed", String(options[i][1] === picked));
    });
    go.disabled = picked === undefined;
  };
  show(...head, el("h2", {}, QUESTION[TEST.kind]), el("div", { class: "players" }, ...players.map((p) => p.node)),
    el("div", { class: "choice", role: "group", "aria-label": QUESTION[TEST.kind] }, ...buttons),
    foot(go, ["play", ...parts.map(([label]) => label)], ["choose", ...options.map(([, , key]) => key)], ["next", "Enter"]));
  watch(players, draw);
  keys = (e) => {
    const part = parts.findIndex(([label]) => label.toLowerCase() === e.key.toLowerCase());
    const option = options.findIndex(([, , key]) => key === e.key);
    if (part >= 0) players[part].toggle();
    else if (option >= 0) choose(options[option][1]);
    else if (e.key === " ") { e.preventDefault(); (players.find((p) => p.draw()) ?? players[0]).toggle(); }
    else if (e.key === "Enter") go.click();
  };
}

function askMany(trial, head, answer, go, given) {
  const heard = new Set(Object.keys(given));
  let current = "ref";
  const parts = [["Ref", trial.reference, "ref"], ...trial.stimuli.map((name, i) => [String.fromCharCode(65 + i), name, name])];
  const picks = parts.map(([label, name, id]) => {
    const node = button([icon(PLAY), label], "pick", () => pick(id), { "data-sound": name, "data-id": id });
    return { node, id, name, label };
  });
  const pick = async (id) => {
    const { name } = picks.find((p) => p.id === id);
    if (playing && current === id) return stop();
    const from = playing ? position() : 0; // go on at the same place
    current = id;
    heard.add(id);
    await play(name, { from, loop: true });
  };
  const rows = picks.slice(1).map(({ node, id, label }) => {
    const set = id in given, value = set ? given[id] : 50;
    const shown = el("output", set ? {} : { class: "unset" }, set ? String(value) : "-");
    const slider = el("input", { type: "range", min: "0", max: "100", step: "1", "aria-label": `Rating of ${label}`,
      class: set ? "" : "unset", "data-sound": id });
    slider.value = value;
    const paint = () => {
      shown.textContent = slider.value;
      shown.className = slider.className = "";
      slider.style.setProperty("--fill", `${slider.value}%`);
    };
    if (set) paint();
    slider.addEventListener("input", paint);
    const settle = () => {
      if (!heard.has(id)) {
        slider.value = 50;
        slider.className = shown.className = "unset";
        slider.style.removeProperty("--fill");
        shown.textContent = "-";
        return trouble(`Listen to ${label} first.`);
      }
      calm();
      paint();
      if (trial.practice) given[id] = Number(slider.value);
      answer(id, Number(slider.value));
      draw();
    };
    slider.addEventListener("change", settle);
    slider.addEventListener("pointerup", () => setTimeout(settle)); // also where it stood already
    return el("div", { class: "slide" }, node, slider, shown);
  });
  const values = () => (trial.practice ? given : me.answers[trial.id] ?? {});
  const draw = () => {
    picks.forEach(({ node, id, label }) => {
      const on = playing !== null && current === id;
      node.classList.toggle("on", on);
      node.firstElementChild.firstElementChild.setAttribute("d", on ? PAUSE : PLAY);
      node.setAttribute("aria-label", `${on ? "Stop" : "Play"} ${label === "Ref" ? "the reference" : label}`);
    });
    go.disabled = !trial.stimuli.every((s) => s in values());
  };
  show(...head, el("h2", {}, QUESTION.mushra),
    el("p", { class: "soft" }, "One of the letters is the reference itself: rate that one 100."),
    el("div", { class: "rows" },
      el("div", { class: "slide head" }, picks[0].node, el("div", { class: "bands" }, ...BANDS.map((b) => el("span", {}, b))), el("span")),
      ...rows),
    foot(go, ["reference", "R"], ["play", "A", "B"], ["rate", "\u2190", "\u2192"], ["next", "Enter"]));
  redraw = draw;
  draw();
  keys = (e) => {
    const slider = e.target.matches("input[type=range]");
    const letter = e.key.length === 1 ? e.key.toUpperCase() : "";
    const part = picks.find((p) => p.label === letter || (letter === "R" && p.id === "ref" && trial.stimuli.length < 18));
    if (part) {
      pick(part.id);
      if (part.id !== "ref") screen.querySelector(`input[data-sound="${part.id}"]`).focus();
    } else if (e.key === " ") { e.preventDefault(); pick(current); }
    else if (/^(ArrowLeft|ArrowRight)$/.test(e.key) && !slider && current !== "ref") {
      screen.querySelector(`input[data-sound="${current}"]`).focus();
    } else if (e.key === "Enter") go.click();
  };
}

function endingText() {
  if (!SERVED) return "Save your answers as a file, and send it to whoever asked you.";
  const n = me.queue.length;
  return n ? `${n} ${n === 1 ? "answer is" : "answers are"} not saved yet: leave this page open until they are.`
    : "All your answers are saved. You can close this page.";
}

function end(count) {
  const inside = [
    el("h2", {}, me.name ? `Thank you, ${me.name}` : "Thank you"),
    el("p", {}, `You answered all ${count} questions.`),
    el("p", { id: "ending", role: "status" }, endingText()),
  ];
  if (!SERVED) inside.push(el("div", { class: "row" }, button("Save my answers", "main", download, { id: "save" })));
  show(...inside);
}

function download() {
  const facts = { test: TEST.id, listener: { id: me.id, name: me.name, seed: me.seed }, answers: me.queue };
  const url = URL.createObjectURL(new Blob([JSON.stringify(facts, null, 1)], { type: "application/json" }));
  const link = el("a", { href: url, download: `ratings-${me.id.slice(0, 8)}.json` });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// --- begin

async function begin() {
  document.title = TEST.title;
  document.getElementById("title").textContent = TEST.title;
  progress(0, TEST.trials.filter((t) => !t.practice).length);
  if (SERVED) {
    const given = location.hash.slice(1);
    if (given && given !== me.token) {
      forget();
      me.token = given;
      keep();
    }
    if (!me.token && !window.OPEN_DOOR) {
      return show(el("h2", {}, "This test is by invitation"), el("p", {}, "Open the link that you were given."));
    }
    if (me.token) {
      try {
        const known = await api("me");
        const waiting = me.queue;
        me.answers = known.answers;
        for (const { trial, item, value } of waiting) (me.answers[trial] ??= {})[item] = value;
        me.name = known.name;
        me.trained ||= Object.keys(known.answers).length > 0;
        keep();
      } catch (error) {
        if (error.status !== 401) {
          show(el("h2", {}, "The server does not answer"), el("p", {}, "Your answers are kept. Reload the page in a minute."));
          return;
        }
        forget();
        if (given || !window.OPEN_DOOR) {
          return show(el("h2", {}, "This link is not known"), el("p", {}, "It is of another test, or was mistyped. Ask for another."));
        }
      }
    }
  }
  flush();
  welcome();
}

begin();
