/**
 * Options and where they come from: a good one has its default, a bad one is named, with what would be right.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { DEFAULT_LIMITS, collection, defineSchema, string } from '@rejoin/shared'
import { gatherOptions } from '#server/config.js'
import { checkOptions } from '#server/options-check.js'
import { sqlite } from '#server/sinks/sqlite.js'

const folder = mkdtempSync(join(tmpdir(), 'rejoin-options-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const schema = defineSchema({ pets: collection({ name: string() }) })
const sink = { ...sqlite({ path: 'x.db' }), module: 'file:///sink.js' }
/** One that may not pass another. */
const behind = (after: string) => ({ ...sink, forward: { ...sink.forward, after } })
const auth = (): Promise<null> => Promise.resolve(null)

function write(name: string, text: string): string {
  writeFileSync(join(folder, name), text)
  return name
}

/** A module as a string literal of a config file. */
function literal(module: string): string {
  return JSON.stringify(import.meta.resolve(module))
}

describe('options', () => {
  it('have defaults', () => {
    const { logger, ...options } = checkOptions({})
    expect(options).toEqual({
      host: '127.0.0.1',
      port: 4400,
      data: resolve('rejoin-data'),
      schema: undefined,
      auth: undefined,
      sinks: {},
      config: undefined,
      forward: 'here',
      historyMs: 604_800_000,
      limits: DEFAULT_LIMITS,
      retainMs: 3_600_000,
      origins: ['*'],
      insecure: false,
    })
    expect(() => logger.error({}, 'nowhere')).not.toThrow()
  })

  it('are taken as they are given', () => {
    const options = checkOptions({
      host: '0.0.0.0',
      port: 0,
      data: '/d',
      schema,
      auth,
      sinks: { mirror: sink },
      limits: { documents: 5, key: undefined },
      retain: '1.5h',
      origins: ['https://APP.example:443/'],
    })
    expect(options).toMatchObject({
      host: '0.0.0.0',
      port: 0,
      data: '/d',
      sinks: { mirror: sink },
      limits: { ...DEFAULT_LIMITS, documents: 5 },
      retainMs: 5_400_000,
      origins: ['https://app.example'],
    })
    expect(checkOptions({ retain: 'forever' }).retainMs).toBe(Number.POSITIVE_INFINITY)
    expect(checkOptions({ host: '::1' }).host).toBe('::1')
    expect(checkOptions({ host: '0.0.0.0', insecure: true }).host).toBe('0.0.0.0')
  })

  it.each<[unknown, string]>([
    [{ prot: 80 }, 'there is no option "prot"; did you mean "port"?'],
    [{ schemas: schema }, 'there is no option "schemas"; did you mean "schema"?'],
    [{ database: 'x' }, 'there is no option "database"; there are host, port'],
    [{ port: 70_000 }, 'port is a whole number from 0 (a free one) to 65535; this is 70000'],
    [{ port: '80' }, 'port is a whole number from 0 (a free one) to 65535; this is "80"'],
    [{ host: '' }, 'host is text and not empty; this is ""'],
    [{ host: 'http://127.0.0.1' }, 'host is an address or a name without scheme and port'],
    [{ host: '127.0.0.1:80' }, 'host is an address or a name without scheme and port'],
    [
      { host: '0.0.0.0' },
      'host: 0.0.0.0 can be reached from other machines, and there is no auth; set auth in the config file, listen on 127.0.0.1, or say --insecure',
    ],
    [{ host: '::' }, 'host: :: can be reached from other machines'],
    [{ host: 'relay.example' }, 'host: relay.example can be reached from other machines'],
    [{ data: 7 }, 'data is text and not empty; this is 7'],
    [{ schema: {} }, 'schema: a schema is made by defineSchema'],
    [{ auth: 'secret' }, 'auth is jwt({ … }) or a function'],
    [{ sinks: { mirror: sink } }, 'sinks: there is nothing to send without a schema'],
    [{ schema, sinks: [] }, 'sinks is an object of name → sink; this is a list'],
    [{ schema, sinks: { mirror: 'file.db' } }, 'sinks.mirror is made by a sink adapter'],
    [{ schema, sinks: { 'a b': sink } }, 'sinks: "a b" is no name'],
    [
      { schema, sinks: { mirror: behind('miror'), other: sink } },
      'sinks.mirror: after names "miror", and there is no such sink; did you mean mirror?',
    ],
    [
      { schema, sinks: { a: behind('b'), b: behind('c'), c: behind('b') } },
      'sinks: b waits for c waits for b: none of them could ever begin',
    ],
    [{ history: 'long' as '1d' }, "history is a duration such as '30s', '15m', '1h' or '7d'; this is \"long\""],
    [{ limits: { mesage: 1 } }, 'there is no limit "mesage"; did you mean "message"?'],
    [{ limits: { documents: 0 } }, 'limits.documents is a whole number from 1'],
    [{ limits: { message: 2 ** 21 } }, 'limits.message is a whole number from 1 to 1048576; this is 2097152'],
    [{ retain: '1 hour' }, "retain is a duration such as '30s', '15m', '1h' or '7d', or 'forever'; this is \"1 hour\""],
    [{ logger: console.log }, 'logger has the methods debug, info, warn, error; pino() is one; this is a function'],
    [{ origins: 'https://a.example' }, 'origins is a list such as'],
    [{ origins: ['a.example'] }, "origins has origins such as 'https://app.example'"],
    [{ origins: ['https://a.example/path'] }, "origins has origins such as 'https://app.example'"],
    [{ insecure: 'yes' }, 'insecure is true or false; this is "yes"'],
    [null, 'options are an object; this is null'],
  ])('%o: the message names what is wrong', (options, message) => {
    expect(() => checkOptions(options as never)).toThrow(message)
    expect(() => checkOptions(options as never)).toThrow(expect.objectContaining({ code: 'bad_option' }) as Error)
  })
})

describe('where they come from', () => {
  it('a flag goes before a variable, a variable before the file', async () => {
    const config = write('order.config.mjs', `export default { host: '127.0.0.1', port: 1, data: 'from-file', retain: '2h' }`)
    const { options, logLevel } = await gatherOptions(
      { config, port: '3', logLevel: 'debug' },
      { REJOIN_PORT: '2', REJOIN_DATA: 'from-variable', REJOIN_ORIGINS: 'https://a.example, https://b.example', REJOIN_INSECURE: '1' },
      folder,
    )
    expect(options).toEqual({
      config: join(folder, config),
      host: '127.0.0.1',
      port: 3,
      data: join(folder, 'from-variable'),
      retain: '2h',
      origins: ['https://a.example', 'https://b.example'],
      insecure: true,
    })
    expect(logLevel).toBe('debug')
  })

  it('a config file may be TypeScript, and shares our own packages with the process', async () => {
    const config = write(
      'typed.config.ts',
      `import { defineConfig } from ${literal('#server/config.js')}\nimport { defineSchema, collection, string, SyncError } from ${literal('@rejoin/shared')}\n` +
        `const port: number = 5\nexport default defineConfig({ port, schema: defineSchema({ pets: collection({ name: string() }) }), auth: async () => { throw new SyncError('expired', 'over') } })\n`,
    )
    const { options, file } = await gatherOptions({ config }, {}, folder)
    expect([options.port, file]).toEqual([5, join(folder, 'typed.config.ts')])
    expect(checkOptions(options).schema).toEqual(schema)
    const { SyncError } = await import('@rejoin/shared')
    await expect(options.auth?.({ token: 'x', url: '/', headers: {} })).rejects.toBeInstanceOf(SyncError)
  })

  it('rejoin.config.* of the working directory is found, and a secret’s file is auth', async () => {
    write('rejoin.config.js', 'export default { port: 9 }')
    write('package.json', '{"type":"module"}')
    write('secret', 'a secret of at least thirty-two bytes\n')
    const { options, file } = await gatherOptions({}, { REJOIN_JWT_SECRET_FILE: 'secret' }, folder)
    expect([options.port, file, typeof options.auth]).toEqual([9, join(folder, 'rejoin.config.js'), 'function'])
    rmSync(join(folder, 'rejoin.config.js'))
  })

  it('variables that mean nothing are told, not refused', async () => {
    const { warnings } = await gatherOptions({}, { REJOIN_PROT: '1', REJOIN_COLOUR_OF_THE_SKY: 'blue', PATH: '/bin' }, folder)
    expect(warnings).toEqual([
      'REJOIN_PROT means nothing to rejoin serve; did you mean REJOIN_PORT?',
      'REJOIN_COLOUR_OF_THE_SKY means nothing to rejoin serve',
    ])
  })

  it.each<[Parameters<typeof gatherOptions>[0], Record<string, string>, RegExp]>([
    [{ port: 'many' }, {}, /^--port is a whole number from 0 .*; this is "many"/u],
    [{}, { REJOIN_PORT: '-1' }, /^REJOIN_PORT is a whole number/u],
    [{ logLevel: 'loud' }, {}, /^--log-level is one of silent, error, warn, info, debug; this is "loud"/u],
    [{ config: 'absent.ts' }, {}, /^--config: there is no file .*absent\.ts/u],
    [{}, { REJOIN_INSECURE: 'maybe' }, /^REJOIN_INSECURE is 1, 0, true or false; this is "maybe"/u],
    [{}, { REJOIN_JWT_SECRET_FILE: 'absent' }, /^REJOIN_JWT_SECRET_FILE: .*absent cannot be read/u],
  ])('%o %o: the message names the flag or the variable', async (flags, environment, message) => {
    const error = await gatherOptions(flags, environment, folder).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'bad_option', reason: expect.stringMatching(message) as string })
  })

  it('a config file that throws, or exports nothing, is named', async () => {
    const [throws, empty] = [
      write('throws.config.ts', 'throw new Error("out of milk")'),
      write('empty.config.mjs', 'export const port = 1'),
    ]
    await expect(gatherOptions({ config: throws }, {}, folder)).rejects.toThrow(/throws\.config\.ts cannot be loaded: out of milk/u)
    await expect(gatherOptions({ config: empty }, {}, folder)).rejects.toThrow(
      /empty\.config\.mjs has no default export of options; write export default defineConfig/u,
    )
  })
})
