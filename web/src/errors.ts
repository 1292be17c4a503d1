/** The one error a user is meant to read: one sentence that says what to do. */
export class Sentence extends Error {}

/** Ends work that nobody wants any more. */
export class Stopped extends Error {}

/** What to show for any error. */
export function explain(error: unknown): string {
  if (error instanceof Sentence) return error.message;
  const reason = error instanceof Error ? error.message : String(error);
  return `Something went wrong (${reason.split("\n")[0].slice(0, 200)}). Reload the page and try again.`;
}
