/**
 * Cases of the conformance kit about what becomes of a destination (beside the path): constraints, tables that go, copies that are put back, other owners.
 */
import type { Case } from './play.ts'
import { HERE, everyone, play, same } from './play.ts'
import { pause, pet } from './scene.ts'

export const PLACE_CASES: readonly Case[] = [
  play(
    'unique index in the way',
    'A row that another one is in the way of waits, and is in when the other has gone.',
    { destination: ['unique'] },
    async (scene) => {
      const runner = scene.start()
      scene.edit(everyone())
      await scene.settle(runner)
      await scene.destination.unique?.('pets', 'name')
      scene.edit([pet('mia', 'rex'), pet('tom', 'free')])
      if (scene.forward.onPoison === 'stop') {
        await scene.until('it to stop at the row', () => runner.status().state === 'poisoned')
        return
      }
      await scene.settle(runner, ['mia'])
      scene.edit([pet('rex', 'moved on')])
      if (scene.forward.onPoison === 'block') {
        await scene.settle(runner, ['mia'])
        await scene.until('what was refused to be tried again', () => runner.forwarder.requeue().then(() => true))
      }
      await scene.settle(runner)
    },
  ),

  play(
    'two rows swap unique values',
    'Rows that exchange unique values in one edit are written together.',
    { destination: ['unique'] },
    async (scene) => {
      const runner = scene.start()
      scene.edit(everyone())
      await scene.settle(runner)
      await scene.destination.unique?.('pets', 'name')
      scene.edit([pet('rex', 'mia'), pet('mia', 'rex'), pet('tom', 'ida'), pet('ida', 'leo'), pet('leo', 'tom')])
      await scene.settle(runner)
      await scene.until('nothing to be parked', () => runner.status().parked.total === 0)
    },
  ),

  play(
    'table dropped',
    'What somebody drops is made again and filled, without a restart.',
    { destination: ['drop'], powers: ['cursor'], state: 'events are not written anew' },
    async (scene) => {
      const runner = scene.start()
      scene.edit(everyone())
      await scene.settle(runner)
      await scene.destination.drop?.('pets')
      scene.edit([pet('rex', 'after')])
      await scene.settle(runner)
    },
  ),

  play(
    'destination restored from backup',
    'A destination that is put back to a copy is brought forward again from there.',
    { destination: ['backup'], powers: ['cursor'] },
    async (scene) => {
      const runner = scene.start()
      scene.edit(everyone())
      await scene.settle(runner)
      const restore = await scene.destination.backup?.()
      scene.edit([pet('rex', 'after the copy'), pet('mia', null), pet('zoe', 'new')])
      scene.edit([pet('tom', 'after the copy')])
      await scene.settle(runner)
      await restore?.()
      // Nothing new comes: it has to be noticed all the same.
      await scene.settle(runner)
      scene.edit([pet('ida', 'and on')])
      await scene.settle(runner)
    },
  ),

  play(
    'relay restored from backup',
    'A relay that is put back to a copy does not take another history for its own.',
    { powers: ['cursor', 'keys'] },
    async (scene) => {
      const runner = scene.start()
      scene.edit(everyone())
      await scene.settle(runner)
      await runner.stop()
      const restore = scene.backupRelay()
      const ahead = scene.start()
      scene.edit([pet('rex', 'lost with the relay'), pet('zoe', 'lost with the relay')])
      scene.edit([pet('mia', null)])
      await scene.settle(ahead)
      await ahead.stop()
      restore()
      scene.edit([pet('tom', 'another history')])
      const back = scene.start()
      if (scene.forward.strategy === 'actions') {
        scene.edit([pet('ida', 'another history')])
        await scene.until('it to say that it is cut off', () => back.status().state === 'cut-off')
        return
      }
      scene.edit([pet('ida', 'another history')])
      scene.edit([pet('leo', 'another history')])
      await scene.settle(back)
      same((await scene.names())['zoe'], undefined)
    },
  ),

  play(
    "another log's config",
    'A destination is never written from two logs, unless somebody says that it is to change hands.',
    { powers: ['identity'] },
    async (scene) => {
      const runner = scene.start()
      scene.edit(everyone())
      await scene.settle(runner)
      await runner.stop()
      const stranger = scene.start({ log: 'd0'.repeat(16) })
      await scene.until('it to be refused', () => stranger.status().state === 'failing')
      if (!/log/u.test(stranger.status().error ?? '')) throw new Error(`the refusal does not name the log: ${stranger.status().error}`)
      same(await scene.names(), Object.fromEntries(HERE.map((id) => [id, id])))
      await stranger.stop()
      const owner = scene.start()
      scene.edit([pet('rex', 'still ours')])
      await scene.settle(owner)
    },
  ),

  play(
    'server restarted',
    'A destination that goes away in the middle and comes back misses nothing.',
    { destination: ['restart'] },
    async (scene) => {
      const runner = scene.start()
      scene.edit(everyone())
      await scene.settle(runner)
      const restarted = scene.destination.restart?.()
      for (let i = 0; i < 10; i++) {
        scene.edit([pet('rex', `r${i}`), pet(`new-${i}`, 'new')])
        await pause(10)
      }
      await restarted
      scene.edit([pet('mia', null)])
      await scene.settle(runner)
    },
  ),
]
