/**
 * Says whether the structs of an update can be integrated at all (step 4 of the path): whether some order gives each what it leans on before its turn.
 * Yjs finds such an order when there is one, depth first, and keeps the rest pending when there is none; this walks the same way, without the structs.
 */
import type { Block } from './update.ts'

/**
 * `needs` are triples: the clock of a struct in its block, and the client and clock it leans on. Each block's part of them is in the order of its structs.
 * Linear: a block is entered only to go on behind its next need.
 */
export function canIntegrate(blocks: readonly Block[], needs: readonly number[], index: ReadonlyMap<number, Block> | undefined): boolean {
  if (needs.length === 0) return true
  if (index === undefined) return false
  const stack: Block[] = []
  for (const root of blocks) {
    enter(stack, root)
    let block: Block | undefined = root
    while (block !== undefined) {
      if (isDone(block, stack[stack.length - 2], needs)) {
        block.visiting = false
        stack.pop()
      } else {
        const other = index.get(needs[block.at + 1] as number)
        const clock = needs[block.at + 2] as number
        if (other === undefined || clock >= other.end) return false
        if (reached(other, needs) > clock) block.at += 3
        else if (other.visiting) return false
        else enter(stack, other)
      }
      block = stack[stack.length - 1]
    }
  }
  return true
}

function enter(stack: Block[], block: Block): void {
  block.visiting = true
  stack.push(block)
}

/** Whether the block has come to its end, or as far as the one that waits for it needs. */
function isDone(block: Block, waiting: Block | undefined, needs: readonly number[]): boolean {
  if (block.at === block.needsEnd) return true
  return waiting !== undefined && reached(block, needs) > (needs[waiting.at + 2] as number)
}

/** Every clock below it could be integrated by now. */
function reached(block: Block, needs: readonly number[]): number {
  return block.at < block.needsEnd ? (needs[block.at] as number) : block.end
}
