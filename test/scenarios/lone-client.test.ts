/**
 * A program that is nothing but a client: it waits for a relay that is not there, and ends when it closes the client.
 */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { inFolder, startRelay } from '../support/wire-client.ts'
import { until } from '../support/until.ts'

const PROGRAM = `
import { createClient } from '@rejoin/client'
import { sqlite } from '@rejoin/client/sqlite'
const [url, path] = process.argv.slice(-2)
const client = createClient({ url, store: sqlite({ path }) })
const replica = client.open('alone')
await replica.whenLoaded()
const edit = replica.edit(() => replica.ydoc.getMap('m').set('a', 1))
client.status.subscribe(({ connection }) => console.log(connection.name))
console.log(client.status.get().connection.name)
await edit.wait({ to: 'relay' })
console.log('acked')
await client.close()
console.log('over')
`

it('waits for the relay as long as it takes, and leaves nothing that keeps the process after close', async () => {
  await inFolder(async (folder) => {
    const first = await startRelay(folder)
    await first.kill()
    const child = spawn(process.execPath, ['--input-type=module', '-e', PROGRAM, first.url, join(folder, 'device.db')], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let said = ''
    let code: number | null | undefined
    child.stdout.on('data', (text: Buffer) => {
      said += text.toString()
    })
    child.on('exit', (exit) => {
      code = exit
    })
    // With nothing but the wait for the next dial to keep it, the process must still be there.
    await until(() => said.includes('offline') || code !== undefined)
    expect(code).toBeUndefined()
    const second = await startRelay(folder, '--port', new URL(first.url).port)
    await until(() => code !== undefined, 'the program ends', 40_000)
    await second.kill()
    expect(said).toMatch(/acked\n(?:closed\n)*over\n$/u)
    expect(code).toBe(0)
  })
})
