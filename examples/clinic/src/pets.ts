/**
 * What the clinic knows of animals: their kinds and how old they are.
 */

/** Kind → the hue of its monogram, in degrees. */
const KIND_HUES: Readonly<Record<string, number>> = { Dog: 28, Cat: 262, Rabbit: 340, Bird: 205, Reptile: 130, Other: 80 }

export const KINDS: readonly string[] = Object.keys(KIND_HUES)

export function kindHue(kind: string): number {
  return KIND_HUES[kind] ?? 80
}

/** `2020-05-17` → `6 years`, `4 months`; empty when it is not a date of the past. */
export function ageOf(dob: string, now: Date = new Date()): string {
  const born = new Date(`${dob}T00:00`)
  if (Number.isNaN(born.getTime()) || born > now) return ''
  const months = (now.getFullYear() - born.getFullYear()) * 12 + now.getMonth() - born.getMonth() - (now.getDate() < born.getDate() ? 1 : 0)
  const [count, unit] = months >= 24 ? [Math.floor(months / 12), 'year'] : [months, 'month']
  return `${count} ${unit}${count === 1 ? '' : 's'}`
}
