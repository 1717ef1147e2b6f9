/**
 * Who a request is: tokens that verify, and every way in which they do not; and what a grant allows.
 */
import * as fc from 'fast-check'
import { SignJWT, UnsecuredJWT, exportJWK, generateKeyPair } from 'jose'
import { beforeAll, describe, expect, it, vi } from 'vitest'
import type { Access, DocumentId } from '@rejoin/shared'
import { checkedAuthorize, grantProblem, jwt } from '#server/http/authorize.js'
import type { Authorize, Grant } from '#server/relay/grant.js'
import { OPEN_GRANT, accessOf } from '#server/relay/grant.js'
import { signToken } from '#server/token.js'
import { createVirtualClock } from '../support/virtual-clock.ts'

const SECRET = 'a secret of at least thirty-two bytes, as HS256 wants it'
const NOW = Date.parse('2026-05-17T10:00:00Z')
const clock = { now: () => NOW, after: () => () => {} }
const request = (token: string) => ({ token, url: '/sync', headers: {} })
const flags = { sub: 'alice', doc: ['clinic-*=write', 'clinic-secret=none'], ttl: '1h' }
const key = new TextEncoder().encode(SECRET)
const seconds = Math.floor(NOW / 1000)
const sign = (claims: object, algorithm = 'HS256', secret = key): Promise<string> =>
  new SignJWT({ ...claims }).setProtectedHeader({ alg: algorithm }).sign(secret)

describe('a token', () => {
  const auth = jwt({ secret: SECRET, issuer: 'https://issuer.example', audience: 'clinic', clock })
  const good = { docs: { 'clinic-*': 'write' }, iss: 'https://issuer.example', aud: 'clinic', sub: 'alice', exp: seconds + 60 }

  it('that verifies is a grant', async () => {
    expect(await auth(request(await sign({ ...good, admin: true })))).toEqual({
      principal: 'alice',
      documents: { 'clinic-*': 'write' },
      admin: true,
      expiresAt: NOW + 60_000,
    })
  })

  it('made by `rejoin token` is one that verifies', async () => {
    const token = await signToken(`${SECRET}\n`, { ...flags, admin: true, issuer: 'https://issuer.example', audience: 'clinic' }, NOW)
    expect(await auth(request(token))).toEqual({
      principal: 'alice',
      documents: { 'clinic-*': 'write', 'clinic-secret': 'none' },
      admin: true,
      expiresAt: NOW + 3_600_000,
    })
  })

  it('that is absent is no grant', async () => {
    expect(await auth(request(''))).toBeNull()
  })

  it.each<[string, () => Promise<string> | string, string, RegExp]>([
    ['is over', () => sign({ ...good, exp: seconds }), 'expired', /the token is over/u],
    ['is not yet valid', () => sign({ ...good, nbf: seconds + 60 }), 'unauthorized', /claim nbf/u],
    [
      'is signed with another secret',
      () => sign(good, 'HS256', new TextEncoder().encode('another secret of thirty-two bytes and more')),
      'unauthorized',
      /does not verify/u,
    ],
    [
      'is signed with an algorithm that is not listed',
      () => sign(good, 'HS512'),
      'unauthorized',
      /an algorithm that this relay does not accept/u,
    ],
    ['is not signed: alg none', () => new UnsecuredJWT(good).encode(), 'unauthorized', /algorithm|verify/u],
    [
      'was changed',
      async () =>
        (await sign(good)).replace(/\.[^.]+\./u, `.${btoa(JSON.stringify({ ...good, docs: { '*': 'write' } })).replaceAll('=', '')}.`),
      'unauthorized',
      /does not verify/u,
    ],
    ['is of another issuer', () => sign({ ...good, iss: 'https://evil.example' }), 'unauthorized', /claim iss/u],
    ['is for another audience', () => sign({ ...good, aud: 'shop' }), 'unauthorized', /claim aud/u],
    ['names nobody', () => sign({ ...good, sub: undefined }), 'unauthorized', /claims: sub is not a string/u],
    ['names somebody in 300 bytes', () => sign({ ...good, sub: 'x'.repeat(300) }), 'unauthorized', /sub is 300 bytes, at most 256/u],
    [
      'has a star in the middle',
      () => sign({ ...good, docs: { 'a*b': 'write' } }),
      'unauthorized',
      /docs: in "a\*b" the \* is not at the end/u,
    ],
    ['grants something unknown', () => sign({ ...good, docs: { a: 'own' } }), 'unauthorized', /docs: "a" is neither/u],
    ['is admin by a word', () => sign({ ...good, admin: 'yes' }), 'unauthorized', /admin/u],
    ['is no token', () => 'nonsense', 'unauthorized', /does not verify/u],
  ])('that %s is refused, and the error holds nothing of it', async (_what, make, code, message) => {
    const token = await make()
    const error = await Promise.resolve(auth(request(token))).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ name: 'SyncError', code })
    expect(String(error)).toMatch(message)
    for (const part of token.split('.').filter((piece) => piece.length > 8)) expect(String(error)).not.toContain(part)
  })

  it('is never thrown on by its bytes', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ minLength: 1 }), async (token) => {
        await expect(auth(request(token))).rejects.toMatchObject({ name: 'SyncError', code: 'unauthorized' })
      }),
    )
  })
})

describe('keys of an identity provider', () => {
  let auth: Authorize
  let signByKey: (algorithm: string) => Promise<string>

  beforeAll(async () => {
    const { publicKey, privateKey } = await generateKeyPair('ES256')
    const jwks = { keys: [{ ...(await exportJWK(publicKey)), kid: 'k1', alg: 'ES256' }] }
    auth = jwt({ jwks, clock })
    signByKey = (algorithm) =>
      new SignJWT({ sub: 'bob', docs: {} })
        .setProtectedHeader({ alg: algorithm, kid: 'k1' })
        .sign(algorithm === 'ES256' ? privateKey : new TextEncoder().encode(JSON.stringify(jwks.keys[0])))
  })

  it('verify what they signed, and nothing signed with the public key as a secret', async () => {
    expect(await auth(request(await signByKey('ES256')))).toEqual({ principal: 'bob', documents: {} })
    await expect(auth(request(await signByKey('HS256')))).rejects.toMatchObject({ code: 'unauthorized' })
  })

  it('that cannot be fetched are nobody’s fault but theirs: come back later', async () => {
    const unreachable = jwt({ jwks: 'http://127.0.0.1:1/keys', clock })
    await expect(unreachable(request(await signByKey('ES256')))).rejects.toMatchObject({ code: 'overloaded' })
  })
})

describe('options of jwt', () => {
  it.each<[string, Parameters<typeof jwt>[0], RegExp]>([
    ['neither secret nor keys', {}, /give either secret or jwks/u],
    ['both', { secret: SECRET, jwks: { keys: [] } }, /give either secret or jwks/u],
    ['an empty secret', { secret: '\n' }, /the secret is empty/u],
    ['no algorithm', { secret: SECRET, algorithms: [] }, /algorithms: \(none\)/u],
    ['the algorithm none', { secret: SECRET, algorithms: ['none'] }, /algorithms: none is not one of HS256/u],
    ['a public-key algorithm with a secret', { secret: SECRET, algorithms: ['RS256'] }, /RS256 is not one of HS256/u],
    ['a secret algorithm with public keys', { jwks: { keys: [] }, algorithms: ['HS256'] }, /HS256 is not one of RS256/u],
    ['keys at no address', { jwks: 'keys.json' }, /keys\.json is not an http\(s\) address/u],
    ['keys that are none', { jwks: { keys: 7 } as never }, /not a JSON Web Key Set/u],
  ])('with %s are refused', (_what, options, message) => {
    expect(() => jwt(options)).toThrow(message)
    expect(() => jwt(options)).toThrow(expect.objectContaining({ code: 'bad_option' }) as Error)
  })
})

describe('a secret that is short', () => {
  it('is taken, with a warning that does not hold it', () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined)
    jwt({ secret: SECRET })
    expect(warn).not.toHaveBeenCalled()
    jwt({ secret: 'hunter2\n' })
    expect(warn.mock.calls).toEqual([[expect.stringContaining('the secret is 7 bytes'), 'RejoinWarning']])
    expect(JSON.stringify(warn.mock.calls)).not.toContain('hunter2')
    warn.mockRestore()
  })
})

describe('auth of any kind', () => {
  const grant: Grant = { principal: 'carol', documents: { '*': 'read' }, expiresAt: NOW + 1 }

  it('is asked for a grant that is well formed and not over', async () => {
    expect(await checkedAuthorize(async () => grant, clock)(request(''))).toBe(grant)
    await expect(checkedAuthorize(async () => null, clock)(request(''))).rejects.toMatchObject({
      code: 'unauthorized',
      reason: 'no token was given',
    })
    await expect(checkedAuthorize(async () => null, clock)(request('x'))).rejects.toMatchObject({
      code: 'unauthorized',
      reason: 'the token was refused',
    })
    await expect(checkedAuthorize(async () => ({ ...grant, expiresAt: NOW }), clock)(request(''))).rejects.toMatchObject({
      code: 'expired',
    })
    await expect(checkedAuthorize(async () => ({ user: 'carol' }) as never, clock)(request(''))).rejects.toMatchObject({
      code: 'internal',
      reason: 'auth gave a grant that is none: principal is not a string, or empty',
    })
  })

  it('that does not decide is not waited for', async () => {
    const time = createVirtualClock()
    const undecided = expect(checkedAuthorize(() => new Promise(() => {}), time)(request('x'))).rejects.toMatchObject({
      code: 'overloaded',
    })
    await time.advance(5000)
    await undecided
  })

  it('that is absent grants everything', async () => {
    expect(await checkedAuthorize(undefined, clock)(request(''))).toBe(OPEN_GRANT)
  })
})

describe('a grant', () => {
  const id = fc.string({ unit: fc.constantFrom('a', 'b', '-', '/', 'é'), minLength: 1, maxLength: 8 }).map((value) => value as DocumentId)
  const access = fc.constantFrom<Access>('none', 'read', 'write')
  // Patterns that are beginnings of the document, or all of it, so that several match.
  const asked = id.chain((document) => {
    const pattern = fc.oneof(
      fc.nat(document.length).map((end) => `${document.slice(0, end)}*`),
      fc.constant<string>(document),
      fc.tuple(id, fc.boolean()).map(([name, star]) => (star ? `${name}*` : name)),
    )
    return fc.record({ document: fc.constant(document), documents: fc.dictionary(pattern, access, { maxKeys: 6 }) })
  })

  it('allows what its longest match says, exact ids before prefixes, and nothing without a match', () => {
    fc.assert(
      fc.property(asked, ({ documents: patterns, document }) => {
        const matches = Object.keys(patterns).filter((name) =>
          name.endsWith('*') ? document.startsWith(name.slice(0, -1)) : name === document,
        )
        const exact = matches.find((name) => !name.endsWith('*'))
        const longest = exact ?? matches.toSorted((a, b) => b.length - a.length)[0]
        expect(accessOf({ principal: 'p', documents: patterns }, document)).toBe(longest === undefined ? 'none' : patterns[longest])
      }),
    )
  })

  it('does not depend on the order in which it was written', () => {
    fc.assert(
      fc.property(asked, ({ documents: patterns, document }) => {
        const turned = Object.fromEntries(Object.entries(patterns).toReversed())
        expect(accessOf({ principal: 'p', documents: turned }, document)).toBe(accessOf({ principal: 'p', documents: patterns }, document))
      }),
    )
  })

  it('is never one by accident', () => {
    fc.assert(
      fc.property(fc.anything(), (value) => {
        expect(grantProblem(value)).toBeTypeOf('string')
      }),
    )
    expect(grantProblem({ principal: 'p', documents: { '*': 'write' } })).toBeUndefined()
  })
})
