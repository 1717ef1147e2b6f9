/**
 * The service worker: keeps the app's shell, so that the clinic opens without a network. `vite.config.ts` fills in the version and the files;
 * `serve.js` the relay, whose change makes this another worker, which is how a browser notices that there is a new shell.
 */
const SHELL_CACHE = 'clinic-__VERSION__ %RELAY%'
/** @type {string[]} */
const SHELL = [/* __SHELL__ */]

/** How long a page waits for a slow network before it opens from the cache, in ms. */
const PATIENCE = 2000

const worker = /** @type {any} */ (self)

worker.addEventListener('install', (/** @type {any} */ event) => {
  // All or nothing: a shell with a file missing would not open.
  event.waitUntil(caches.open(SHELL_CACHE).then((cache) => cache.addAll(SHELL.map((url) => new Request(url, { cache: 'reload' })))))
  worker.skipWaiting()
})

worker.addEventListener('activate', (/** @type {any} */ event) => {
  event.waitUntil(dropOldShells().then(() => worker.clients.claim()))
})

worker.addEventListener('fetch', (/** @type {any} */ event) => {
  const { request } = event
  const url = new URL(request.url)
  if (request.method !== 'GET' || url.origin !== location.origin) return
  if (request.mode === 'navigate') event.respondWith(openPage(request))
  else event.respondWith(caches.match(request).then((kept) => kept ?? fetch(request)))
})

async function dropOldShells() {
  const names = await caches.keys()
  await Promise.all(names.filter((name) => name.startsWith('clinic-') && name !== SHELL_CACHE).map((name) => caches.delete(name)))
}

/**
 * The newest page when the network answers soon, else the one that was installed together with its assets.
 * @param {Request} request
 */
async function openPage(request) {
  const cache = await caches.open(SHELL_CACHE)
  const kept = await cache.match('/')
  try {
    const answer = await fetch(request, kept === undefined ? {} : { signal: AbortSignal.timeout(PATIENCE) })
    if (answer.ok || kept === undefined) return answer
    return kept
  } catch (error) {
    if (kept === undefined) throw error
    return kept
  }
}
