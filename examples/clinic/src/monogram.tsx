/**
 * A record's initial on a tint of its kind.
 */
import type { CSSProperties, ReactNode } from 'react'

export function Monogram({ name, hue }: { readonly name: string; readonly hue: number }): ReactNode {
  return (
    <span className="monogram" style={{ '--hue': hue } as CSSProperties} aria-hidden="true">
      {[...name.trim()][0]?.toUpperCase() ?? '·'}
    </span>
  )
}
