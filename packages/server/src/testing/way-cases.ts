/**
 * Cases of the conformance kit about what happens on the way (beside the path): lost answers, deaths, rows that are refused.
 */
import { POISON } from './destination.ts'
import type { Case } from './play.ts'
import { HERE, everyone, hold, play, same } from './play.ts'
import type { Runner } from './scene.ts'
import { pause, pet } from './scene.ts'

export const WAY_CASES: readonly Case[] = [
  play('duplicates', 'What is sent twice is there once.', {}, async (scene) => {
    let lost = 0
    const runner = scene.start({
      items: 2,
      trouble: {
        afterCommit: () => {
          if (lost++ % 2 === 0) throw new Error('the answer was lost')
        },
      },
    })
    for (let i = 0; i < 6; i++) {
      scene.edit(everyone(`-${i}`))
      await pause(5)
    }
    scene.edit([pet('mia', null)])
    await scene.settle(runner)
  }),

  play(
    'any order',
    'What comes late never replaces what is newer, nor brings back what is deleted.',
    { powers: ['guard'] },
    async (scene) => {
      const runner = scene.start()
      scene.edit(everyone('-old'))
      await scene.settle(runner)
      const held = hold(runner)
      scene.edit([pet('rex', 'late'), pet('mia', 'late')])
      await scene.until('a commit on its way', held.isReached)
      // Another forwarder goes on from where the held one stands, and its rows arrive first.
      const next = scene.start()
      scene.edit([pet('rex', 'newer'), pet('mia', null)])
      await scene.settle(next)
      held.release()
      await scene.until('the held commit to end', held.isOver)
      await scene.settle(next)
      same(await scene.names(), { rex: 'newer', tom: 'tom-old', ida: 'ida-old', leo: 'leo-old' })
    },
  ),

  play(
    'crash between effect and cursor',
    'A forwarder that dies at any moment leaves nothing that the next one does not put right.',
    {},
    async (scene) => {
      scene.edit(everyone())
      for (const moment of ['beforeCommit', 'afterCommit', 'beforeNotes'] as const) {
        const trouble: Runner['trouble'] = {}
        const runner = scene.start({ trouble })
        await scene.settle(runner)
        let isDead = false
        trouble[moment] = () => {
          isDead = true
          runner.kill()
          throw new Error(`killed: ${moment}`)
        }
        scene.edit([pet('rex', moment), pet('mia', moment === 'afterCommit' ? null : moment), pet(moment, 'new')])
        // Not every sink writes notes at each commit.
        await scene.until('its death', () => isDead || (moment === 'beforeNotes' && runner.status().state === 'current'))
        runner.kill()
        const next = scene.start()
        await scene.settle(next)
        await next.stop()
      }
    },
  ),

  play(
    'ambiguous timeout and a change back',
    'A write that happened though its answer was lost is not taken for one that did not.',
    {},
    async (scene) => {
      scene.edit(everyone())
      const trouble: Runner['trouble'] = {}
      const runner = scene.start({ trouble })
      await scene.settle(runner)
      let isLost = false
      if (scene.destination.loseReply === undefined) {
        trouble.afterCommit = () => {
          isLost = true
          runner.kill()
          throw new Error('the answer was lost')
        }
      }
      await scene.destination.loseReply?.()
      scene.edit([pet('rex', 'changed'), pet('new', 'brought'), pet('mia', null)])
      await scene.until('the write to have happened', async () => isLost || (await scene.names())['rex'] === 'changed')
      runner.kill()
      await runner.stop()
      // Back to what the cursor knows: without a note of the attempt nothing seems to have changed.
      scene.edit([pet('rex', 'rex'), pet('new', null), pet('mia', 'mia')])
      await scene.settle(scene.start())
      same(await scene.names(), Object.fromEntries(HERE.map((id) => [id, id])))
    },
  ),

  play(
    'partial bulk failure',
    'Of many rows sent together, those that are refused keep no other from being written.',
    { destination: ['poison'] },
    async (scene) => {
      const { onPoison } = scene.forward
      const cure = await scene.destination.poison?.()
      const runner = scene.start()
      scene.edit([...everyone(), pet('bad', POISON), ...Array.from({ length: 40 }, (_, i) => pet(`p${i}`, `n${i}`))])
      if (onPoison === 'stop') {
        await scene.until('it to stop at the row', () => runner.status().state === 'poisoned')
        await cure?.()
        await runner.forwarder.resume()
        return scene.settle(runner)
      }
      await scene.settle(runner, ['bad'])
      await cure?.()
    },
  ),

  play(
    'poison row',
    'A refused row is named, keeps nothing else waiting, and is in with its next good write.',
    { destination: ['poison'] },
    async (scene) => {
      const { onPoison } = scene.forward
      const cure = await scene.destination.poison?.()
      const runner = scene.start()
      scene.edit(everyone())
      await scene.settle(runner)
      scene.edit([pet('rex', POISON)])
      if (onPoison === 'stop') {
        await scene.until('it to stop at the row', () => runner.status().state === 'poisoned')
        await cure?.()
        await runner.forwarder.resume()
        return scene.settle(runner)
      }
      await scene.until('the row to be parked', () => runner.status().parked.total + runner.status().letters > 0)
      scene.edit([pet('mia', 'goes on')])
      await scene.settle(runner, ['rex'])
      same((await scene.names())['rex'], 'rex')
      if (onPoison === 'block') {
        await cure?.()
        await scene.until('what was refused to be tried again', () => runner.forwarder.requeue().then(() => true))
      } else scene.edit([pet('rex', 'good')])
      await scene.settle(runner)
      await scene.until('nothing to be parked', () => runner.status().parked.total === 0)
    },
  ),

  play(
    'frozen forwarder',
    'A forwarder that wakes up after another has taken over changes nothing.',
    { powers: ['fence'] },
    async (scene) => {
      const frozen = scene.start()
      scene.edit(everyone())
      await scene.settle(frozen)
      const held = hold(frozen)
      scene.edit([pet('rex', 'from the frozen one'), pet('mia', null), pet('zoe', 'from the frozen one')])
      await scene.until('a commit on its way', held.isReached)
      const next = scene.start()
      scene.edit([pet('rex', 'newer'), pet('mia', 'back'), pet('zoe', null)])
      await scene.settle(next)
      held.release()
      await scene.until('the held commit to end', held.isOver)
      await scene.until('the old one to know', () => ['fenced', 'failing', 'stopped'].includes(frozen.status().state))
      scene.edit([pet('tom', 'last')])
      await scene.settle(next)
      same((await scene.names())['rex'], 'newer')
    },
  ),

  play(
    'delete, then a late insert during a refresh',
    'A row that goes while everything is written anew does not come back.',
    { state: 'events are not written anew' },
    async (scene) => {
      scene.edit(everyone())
      scene.edit([pet('rex', 'as of the refresh'), pet('zoe', 'zoe')], 'zoo')
      const late = scene.start({ items: 2 })
      const held = hold(late)
      await scene.until('a commit on its way', held.isReached)
      scene.edit([pet('rex', null)])
      scene.edit([pet('zoe', null)], 'zoo')
      const next = scene.start({ items: 2 })
      await scene.settle(next)
      held.release()
      await scene.until('the held commit to end', held.isOver)
      scene.edit([pet('tom', 'last')])
      await scene.settle(next)
    },
  ),
]
