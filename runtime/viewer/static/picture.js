// The picture: draws what comes, says how large it is shown, and counts how many come a second.

const RATE_WINDOW_MS = 2000;

export class Picture {
  #canvas = document.getElementById("picture");
  #screen = document.getElementById("screen");
  #times = [];

  /** @param onResize told, not too often, when the picture is shown larger or smaller. */
  constructor(onResize) {
    let timer = 0;
    new ResizeObserver(() => {
      clearTimeout(timer);
      timer = setTimeout(onResize, 250);
    }).observe(this.#screen);
  }

  /** Device pixels across the place for the picture. */
  get pixels() {
    return Math.ceil(this.#screen.clientWidth * devicePixelRatio);
  }

  /** Draw a picture, (bytes of a) JPEG. */
  async show(header, jpeg) {
    const bitmap = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
    const canvas = this.#canvas;
    if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
    }
    canvas.getContext("2d", { alpha: false }).drawImage(bitmap, 0, 0);
    bitmap.close();
    canvas.setAttribute("aria-label", `${header.view} of ${header.source}, frame ${header.index}`);
    canvas.dataset.frame = header.index;
    this.#times.push(performance.now());
  }

  /** Pictures a second that were shown lately. */
  rate() {
    const now = performance.now();
    this.#times = this.#times.filter((time) => now - time <= RATE_WINDOW_MS);
    if (this.#times.length < 2) return 0;
    return (1000 * (this.#times.length - 1)) / (this.#times.at(-1) - this.#times[0]);
  }
}
