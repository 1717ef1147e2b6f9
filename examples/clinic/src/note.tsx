/**
 * The note that everybody writes on together: Tiptap on the document's XML fragment, with the others' carets.
 */
import { Editor } from '@tiptap/core'
import { Collaboration } from '@tiptap/extension-collaboration'
import { CollaborationCaret } from '@tiptap/extension-collaboration-caret'
import { Placeholder } from '@tiptap/extensions'
import { StarterKit } from '@tiptap/starter-kit'
import type { ReactNode } from 'react'
import { useEffect, useReducer, useRef, useState } from 'react'
import { note, replica } from './clinic.ts'
import { person } from './person.ts'

export function Note(): ReactNode {
  const place = useRef<HTMLDivElement>(null)
  const [editor, setEditor] = useState<Editor>()
  useEffect(() => {
    const made = createEditor(place.current)
    setEditor(made)
    return () => made.destroy()
  }, [])
  return (
    <section className="note" aria-label="Shared note">
      <div className="note-head">
        <h1>Today</h1>
        {editor === undefined ? null : <Tools editor={editor} />}
      </div>
      <div className="note-page" ref={place} />
    </section>
  )
}

function createEditor(element: HTMLElement | null): Editor {
  return new Editor({
    element,
    extensions: [
      // Undo belongs to Collaboration: one person's undo must not take back another's typing.
      StarterKit.configure({ undoRedo: false, heading: { levels: [2, 3] }, link: { openOnClick: false } }),
      Placeholder.configure({ placeholder: 'Handover, reminders, who rang…' }),
      Collaboration.configure({ fragment: note() }),
      CollaborationCaret.configure({ provider: { awareness: replica.presence.awareness }, user: person.get() }),
    ],
    editorProps: { attributes: { 'aria-label': 'Note', role: 'textbox', 'aria-multiline': 'true' } },
  })
}

const TOOLS = [
  {
    label: 'Heading',
    path: 'M4 3v10M12 3v10M4 8h8',
    isOn: (editor: Editor) => editor.isActive('heading'),
    run: (editor: Editor) => editor.chain().focus().toggleHeading({ level: 2 }).run(),
  },
  {
    label: 'Bold',
    path: 'M5 3h3.6a2.4 2.4 0 0 1 0 4.9H5zM5 7.9h4.2a2.6 2.6 0 0 1 0 5.1H5z',
    isOn: (editor: Editor) => editor.isActive('bold'),
    run: (editor: Editor) => editor.chain().focus().toggleBold().run(),
  },
  {
    label: 'Italic',
    path: 'M7 3h5M4 13h5M9.6 3 6.4 13',
    isOn: (editor: Editor) => editor.isActive('italic'),
    run: (editor: Editor) => editor.chain().focus().toggleItalic().run(),
  },
  {
    label: 'List',
    path: 'M6.5 4H13M6.5 8H13M6.5 12H13M3 4h.01M3 8h.01M3 12h.01',
    isOn: (editor: Editor) => editor.isActive('bulletList'),
    run: (editor: Editor) => editor.chain().focus().toggleBulletList().run(),
  },
] as const

function Tools({ editor }: { readonly editor: Editor }): ReactNode {
  const [, redraw] = useReducer((count: number) => count + 1, 0)
  useEffect(() => {
    editor.on('transaction', redraw)
    return () => {
      editor.off('transaction', redraw)
    }
  }, [editor])
  return (
    <div className="tools" role="toolbar" aria-label="Formatting">
      {TOOLS.map(({ label, path, isOn, run }) => (
        <button key={label} type="button" aria-label={label} title={label} aria-pressed={isOn(editor)} onClick={() => run(editor)}>
          <svg viewBox="0 0 16 16" className="icon" aria-hidden="true">
            <path d={path} />
          </svg>
        </button>
      ))}
    </div>
  )
}
