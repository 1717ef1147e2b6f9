/**
 * Builds the app, and its service worker around the list of files that were built.
 */
import { createHash } from 'node:crypto'
import { readFileSync, readdirSync } from 'node:fs'
import react from '@vitejs/plugin-react'
import type { Plugin } from 'vite'
import { defineConfig } from 'vite'

/** Emits sw.js: src/sw.js with the built files as its shell and a hash of them as its version. */
function serviceWorker(): Plugin {
  return {
    name: 'clinic-service-worker',
    apply: 'build',
    generateBundle(_options, bundle) {
      const built = Object.keys(bundle).filter((file) => file.startsWith('assets/'))
      const files = ['/', ...readdirSync(new URL('public', import.meta.url)), ...built]
        .map((file) => (file === '/' ? file : `/${file}`))
        .toSorted()
      const source = readFileSync(new URL('src/sw.js', import.meta.url), 'utf8')
      const page = readFileSync(new URL('index.html', import.meta.url), 'utf8')
      const version = createHash('sha256').update(files.join('\n')).update(page).update(source).digest('hex').slice(0, 12)
      const filled = source.replace('__VERSION__', version).replace('[/* __SHELL__ */]', JSON.stringify(files))
      this.emitFile({ type: 'asset', fileName: 'sw.js', source: filled })
    },
  }
}

export default defineConfig({
  plugins: [react(), serviceWorker()],
  build: { target: 'es2022', chunkSizeWarningLimit: 1000 },
})
