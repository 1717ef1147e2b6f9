/**
 * Starts the clinic: the app at once, the service worker when the page has loaded.
 */
import '@fontsource-variable/figtree/index.css'
import '@fontsource-variable/fraunces/index.css'
import './styles.css'
import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { App } from './app.tsx'

const root = document.getElementById('root')
if (root === null) throw new Error('index.html has no #root')
createRoot(root).render(
  <StrictMode>
    <App />
  </StrictMode>,
)

if (import.meta.env.PROD && 'serviceWorker' in navigator) {
  navigator.serviceWorker
    .register('/sw.js')
    .catch((error: unknown) => console.warn('without a service worker the clinic does not open offline', error))
}
