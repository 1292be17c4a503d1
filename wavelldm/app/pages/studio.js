// Versions of one recording that play in step: all of them run, one is heard.
(() => {
  const parts = (step) => ({
    sounds: [...step.querySelectorAll("audio")],
    picks: [...step.querySelectorAll(".pick")],
    bar: step.querySelector("input[type=range]"),
  });
  const at = (step) => Number(step.dataset.at || 0);
  const choose = (step, index) => {
    const { sounds, picks } = parts(step), time = sounds[at(step)].currentTime;
    sounds.forEach((sound, i) => {
      sound.muted = i !== index;
      if (i === index && Math.abs(sound.currentTime - time) > 0.02) sound.currentTime = time;
    });
    picks.forEach((pick, i) => pick.setAttribute("aria-pressed", String(i === index)));
    step.dataset.at = index;
  };
  const pause = (step) => {
    parts(step).sounds.forEach((sound) => sound.pause());
    step.classList.remove("on");
  };
  const play = (step) => {
    document.querySelectorAll(".step.on").forEach(pause);
    const { sounds } = parts(step), lead = sounds[at(step)];
    choose(step, at(step));
    const time = lead.ended ? 0 : lead.currentTime;
    sounds.forEach((sound) => { sound.currentTime = time; });
    Promise.all(sounds.map((sound) => sound.play())).catch(() => pause(step));
    step.classList.add("on");
    follow(step);
  };
  const follow = (step) => {
    if (!step.isConnected) return pause(step);
    const { sounds, bar } = parts(step), lead = sounds[at(step)];
    if (lead.duration) bar.value = (1000 * lead.currentTime) / lead.duration;
    if (lead.ended) pause(step);
    if (step.classList.contains("on")) requestAnimationFrame(() => follow(step));
  };
  document.addEventListener("click", (event) => {
    const step = event.target.closest?.(".step");
    if (!step) return;
    if (event.target.closest(".play")) step.classList.contains("on") ? pause(step) : play(step);
    const pick = event.target.closest(".pick");
    if (pick) choose(step, parts(step).picks.indexOf(pick));
  });
  document.addEventListener("input", (event) => {
    const step = event.target.closest?.(".step");
    if (!step) return;
    const { sounds, bar } = parts(step);
    sounds.forEach((sound) => { if (sound.duration) sound.currentTime = (bar.value / 1000) * sound.duration; });
  });
  new MutationObserver(() => { // a new result: the last version is the one to hear
    document.querySelectorAll(".step:not([data-at])").forEach((step) => choose(step, parts(step).picks.length - 1));
  }).observe(document, { childList: true, subtree: true });
})();
