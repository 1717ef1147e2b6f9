/**
 * Which principal wrote under which Yjs client id (step 4): an id that two principals write under would make their edits vanish in each other's. Kept in
 * memory and bounded; what is forgotten, or was written before the document was loaded, is not defended.
 */

/** Client ids remembered a document, as a count. */
const KEPT = 10_000

/** The owners of one document's client ids. */
export class Owners {
  readonly #principals = new Map<number, string>()
  /** The only principal that wrote so far; with one, nothing needs to be looked up. */
  #only: string | undefined
  #several = false

  /** Whether none of `clients` is another's. */
  allows(clients: readonly number[], principal: string): boolean {
    if (!this.#several && (this.#only === undefined || this.#only === principal)) return true
    for (const client of clients) {
      const owner = this.#principals.get(client)
      if (owner !== undefined && owner !== principal) return false
    }
    return true
  }

  remember(clients: readonly number[], principal: string): void {
    if (this.#only === undefined) this.#only = principal
    else if (this.#only !== principal) this.#several = true
    for (const client of clients) {
      if (this.#principals.has(client)) continue
      if (this.#principals.size >= KEPT) this.#forgetOldest()
      this.#principals.set(client, principal)
    }
  }

  #forgetOldest(): void {
    for (const client of this.#principals.keys()) {
      this.#principals.delete(client)
      return
    }
  }
}
