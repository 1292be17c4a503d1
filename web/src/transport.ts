/** Play, position and the switch between two recordings: the same controls in two tabs. */
import { clock, element } from "./page";
import { Player } from "./player";
import type { Wav } from "./wav";

export interface Transport {
  load(before: Wav, after: Wav | null): void;
  choose(which: "before" | "after"): void;
  playFrom(seconds: number): void;
  playing(): boolean;
}

/** Controls whose ids begin with `prefix`, in the tab with the id `panel`. Key b switches, space plays. */
export function transport(prefix: string, panel: HTMLElement): Transport {
  const play = element<HTMLButtonElement>(`${prefix}play`);
  const position = element<HTMLInputElement>(`${prefix}position`);
  const before = element<HTMLInputElement>(`${prefix}hear-before`);
  const after = element<HTMLInputElement>(`${prefix}hear-after`);
  const player = new Player(show);
  let length = 0; // seconds

  function show(): void {
    play.textContent = player.playing ? "Pause" : "Play";
    if (!length) return;
    const seconds = player.seconds;
    position.value = String(seconds / length);
    position.setAttribute("aria-valuetext", `${clock(seconds)} of ${clock(length)}`);
    element(`${prefix}time`).textContent = `${clock(seconds)} / ${clock(length)}`;
    for (const line of panel.querySelectorAll<HTMLElement>(".playhead")) line.style.left = `${(100 * seconds) / length}%`;
  }

  function choose(which: "before" | "after"): void {
    if (which === "after" && after.disabled) return;
    (which === "after" ? after : before).checked = true;
    player.hear(which === "after" ? 1 : 0);
  }

  async function seek(seconds: number): Promise<void> {
    await player.seek(seconds);
    show();
  }

  play.addEventListener("click", () => {
    if (player.playing) player.pause();
    else void player.play();
    show();
  });
  position.addEventListener("input", () => void seek(Number(position.value) * length));
  for (const canvas of panel.querySelectorAll<HTMLCanvasElement>("canvas.time")) {
    canvas.addEventListener("click", (event) => void seek((event.offsetX / canvas.clientWidth) * length));
  }
  before.addEventListener("change", () => choose("before"));
  after.addEventListener("change", () => choose("after"));
  document.addEventListener("keydown", (event) => {
    const place = event.target as HTMLElement;
    if (panel.hidden || !length || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " && !place.closest("button, input, select, label")) {
      event.preventDefault();
      play.click();
    }
    if (event.key === "b") choose(before.checked ? "after" : "before");
  });
  setInterval(() => player.playing && show(), 50);

  return {
    load(first, second) {
      player.load(first, second);
      length = first.frames / first.sr;
      after.disabled = !second;
      if (!second) choose("before");
      show();
    },
    choose,
    playFrom(seconds) {
      void seek(seconds).then(() => player.play()).then(show);
    },
    playing: () => player.playing,
  };
}
