// Versions of one recording that play in step, to the sample: all start at one moment of one clock, and one is heard.
(() => {
  let context = null;
  const audio = () => (context ??= new AudioContext());
  const states = new WeakMap(); // step -> {buffers, gains, sources, at, from, since, on}
  const parts = (step) => ({
    sounds: [...step.querySelectorAll(".sound")],
    picks: [...step.querySelectorAll(".pick")],
    bar: step.querySelector("input[type=range]"),
  });
  const state = (step) => {
    if (!states.has(step)) states.set(step, { buffers: null, gains: [], sources: [], at: 0, from: 0, since: 0, on: false });
    return states.get(step);
  };
  const load = (step) => (state(step).buffers ??= Promise.all(parts(step).sounds.map(async (sound) => {
    const answer = await fetch(sound.dataset.src);
    if (!answer.ok) throw new Error("missing");
    return audio().decodeAudioData(await answer.arrayBuffer());
  })));
  const time = (s) => (s.on ? s.from + audio().currentTime - s.since : s.from);
  const choose = (step, index) => {
    const s = state(step);
    s.at = index;
    s.gains.forEach((gain, i) => gain.gain.setTargetAtTime(i === index ? 1 : 0, audio().currentTime, 0.005));
    parts(step).picks.forEach((pick, i) => pick.setAttribute("aria-pressed", String(i === index)));
    step.dataset.at = index;
  };
  const pause = (step, from) => {
    const s = state(step);
    s.from = from ?? time(s);
    s.on = false;
    s.sources.forEach((source) => source.stop());
    s.sources = s.gains = [];
    step.classList.remove("on");
  };
  const play = async (step) => {
    document.querySelectorAll(".step.on").forEach((other) => pause(other));
    step.classList.add("on");
    await audio().resume();
    const s = state(step);
    let buffers;
    try { buffers = await load(step); } catch {
      s.buffers = null; // so that it is tried again
      step.classList.remove("on");
      return;
    }
    if (!step.classList.contains("on") || s.on) return; // stopped, or started twice, meanwhile
    s.since = audio().currentTime + 0.02;
    s.gains = buffers.map((_, i) => new GainNode(audio(), { gain: i === s.at ? 1 : 0 }));
    s.sources = buffers.map((buffer, i) => {
      const source = new AudioBufferSourceNode(audio(), { buffer });
      source.connect(s.gains[i]).connect(audio().destination);
      source.start(s.since, Math.min(s.from, buffer.duration));
      return source;
    });
    s.on = true;
    step.dataset.seconds = buffers.map((buffer) => buffer.duration).join(" ");
    follow(step, Math.max(...buffers.map((buffer) => buffer.duration)));
  };
  const follow = (step, seconds) => {
    const s = state(step);
    if (!s.on) return;
    if (!step.isConnected) return pause(step);
    const at = time(s);
    parts(step).bar.value = (1000 * at) / seconds;
    step.dataset.time = at;
    if (at >= seconds) return pause(step, 0);
    requestAnimationFrame(() => follow(step, seconds));
  };
  document.addEventListener("click", (event) => {
    const step = event.target.closest?.(".step");
    if (!step) return;
    if (event.target.closest(".play")) step.classList.contains("on") ? pause(step) : play(step);
    const pick = event.target.closest(".pick");
    if (pick) choose(step, parts(step).picks.indexOf(pick));
  });
  document.addEventListener("change", async (event) => {
    const step = event.target.closest?.(".step");
    if (!step || event.target.type !== "range") return;
    const share = event.target.value / 1000, was = state(step).on;
    const seconds = Math.max(...(await load(step)).map((buffer) => buffer.duration));
    pause(step, share * seconds);
    if (was) play(step);
  });
  new MutationObserver(() => { // a new result: the last version is the one to hear
    document.querySelectorAll(".step:not([data-at])").forEach((step) => choose(step, parts(step).picks.length - 1));
  }).observe(document, { childList: true, subtree: true });
})();
