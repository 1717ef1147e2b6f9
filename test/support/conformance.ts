/**
 * The conformance kit under vitest: a test per case. What does not apply to a sink is named by its suite, with the reason, so that nothing passes in silence.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { CONFORMANCE_CASES, conformance } from '@rejoin/server/testing'
import type { Conformance } from '@rejoin/server/testing'

/** A sink under test, on a server that was started for it or that somebody named. */
export interface Subject {
  readonly under: Conformance
  /** What it runs against, with its version: 'PostgreSQL 15.14'. */
  readonly server: string
  close(): Promise<void>
}

/** What a file of `test/conformance` exports as `open`; without a URL it starts a server of its own. */
export type OpenSubject = (url?: string) => Promise<Subject>

/** `exempt`: name of a case → part of the reason why it does not apply. */
export function describeConformance(name: string, open: OpenSubject, exempt: Readonly<Record<string, string>> = {}): void {
  describe(`${name} conforms`, () => {
    let subject: Subject | undefined
    beforeAll(async () => {
      subject = await open()
    })
    afterAll(async () => {
      await subject?.close()
    })
    const names = CONFORMANCE_CASES.map((each) => each.name)
    for (const each of names) {
      const why = exempt[each]
      it(why === undefined ? each : `${each}: does not apply (${why})`, async () => {
        const found = subject === undefined ? undefined : conformance(subject.under).find((one) => one.name === each)
        const outcome = await found?.run()
        if (why === undefined) expect(outcome).toMatchObject({ type: 'passed' })
        else expect(outcome).toEqual({ type: 'not applicable', reason: expect.stringContaining(why) as string })
      })
    }
    it('names no exemption that there is no case of', () => {
      expect(names).toEqual(expect.arrayContaining(Object.keys(exempt)))
    })
  })
}
