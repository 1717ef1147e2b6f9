/**
 * Devices on which somebody never stops writing, and what must be true of their marks.
 */
import type * as Y from 'yjs'
import type { Client, StoreFactory } from '@rejoin/client'
import type { Scene } from './scene.ts'

const PACE_MS = 10

/** A device on which somebody never stops writing. */
export class Scribbler {
  readonly ydoc: Y.Doc
  readonly made: string[] = []
  readonly acknowledged: string[] = []
  readonly refused: unknown[] = []
  readonly client: Client
  readonly #name: string
  readonly #timer: NodeJS.Timeout

  constructor(scene: Scene, url: string, name: string, store: StoreFactory) {
    this.#name = name
    this.client = scene.client(url, { store })
    const replica = this.client.open('clinic')
    const log = replica.ydoc.getArray<string>('log')
    let loaded = false
    replica.whenLoaded().then(
      () => (loaded = true),
      (error: unknown) => this.refused.push(error),
    )
    this.#timer = setInterval(() => {
      if (!loaded) return
      const mark = `${this.#name} ${this.made.length}`
      this.made.push(mark)
      const edit = replica.edit(() => log.push([mark]))
      edit.wait({ to: 'relay' }).then(
        () => this.acknowledged.push(mark),
        (error: unknown) => this.refused.push(error),
      )
    }, PACE_MS)
    scene.onEnd(() => this.rest())
    this.ydoc = replica.ydoc
  }

  rest(): void {
    clearInterval(this.#timer)
  }
}

/** The marks in a document, of all devices, in its order. */
export function marksOf(ydoc: Y.Doc): string[] {
  return ydoc.getArray<string>('log').toArray()
}

/** Of one device's marks: in the order in which they were made, each once. */
export function inOrder(marks: readonly string[], name: string): boolean {
  const numbers = marks.filter((mark) => mark.startsWith(`${name} `)).map((mark) => Number(mark.slice(name.length + 1)))
  return numbers.every((number, i) => i === 0 || number > (numbers[i - 1] ?? Infinity))
}
