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
  { label: 'Heading', mark: 'H', isOn: (editor: Editor) => editor.isActive('heading'), run: (editor: Editor) => editor.chain().focus().toggleHeading({ level: 2 }).run() },
  { label: 'Bold', mark: 'B', isOn: (editor: Editor) => editor.isActive('bold'), run: (editor: Editor) => editor.chain().focus().toggleBold().run() },
  { label: 'Italic', mark: 'I', isOn: (editor: Editor) => editor.isActive('italic'), run: (editor: Editor) => editor.chain().focus().toggleItalic().run() },
  { label: 'List', mark: '•', isOn: (editor: Editor) => editor.isActive('bulletList'), run: (editor: Editor) => editor.chain().focus().toggleBulletList().run() },
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
      {TOOLS.map(({ label, mark, isOn, run }) => (
        <button key={label} type="button" aria-label={label} title={label} aria-pressed={isOn(editor)} data-tool={label} onClick={() => run(editor)}>
          {mark}
        </button>
      ))}
    </div>
  )
}
