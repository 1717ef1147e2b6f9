/**
 * How cost grows with size, within one run: what a busy or a slow machine does to it, it does to both sizes.
 */

const ROUNDS = 5

/**
 * The time of `times` as much work, over the time of the work: about `times` when the cost is linear, its square when it is quadratic. `prepare` makes a piece of work of a size, which is then timed, the best of
 * some rounds; both sizes take turns.
 */
export function growth(prepare: (size: number) => () => void, size: number, times: number): number {
  let [small, large] = [Infinity, Infinity]
  for (let round = 0; round < ROUNDS; round++) {
    small = Math.min(small, timed(prepare(size)))
    large = Math.min(large, timed(prepare(size * times)))
  }
  return large / small
}

function timed(run: () => void): number {
  const began = performance.now()
  run()
  return performance.now() - began
}
