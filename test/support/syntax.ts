/**
 * What the architecture test asks of one parsed file.
 */
import ts from 'typescript'
import type { Source } from './sources.ts'
import { visit } from './sources.ts'

/** Names imported from yjs as values. */
export function yjsValues(imports: Source['imports']): readonly string[] {
  return imports
    .filter(({ specifier, typeOnly }) => specifier === 'yjs' && !typeOnly)
    .flatMap(({ names }) => (names.length === 0 ? ['yjs'] : names))
}

/** Uses of `Y.Doc` under any name of the namespace. */
export function docsBuilt(tree: ts.SourceFile): readonly string[] {
  const found: string[] = []
  visit(tree, (node) => {
    if (ts.isPropertyAccessExpression(node) && node.name.text === 'Doc') found.push(node.getText())
  })
  return found
}

/** Default exports, in every spelling. */
export function defaultExports(tree: ts.SourceFile): readonly string[] {
  const found: string[] = []
  visit(tree, (node) => {
    const modifiers = ts.canHaveModifiers(node) ? (ts.getModifiers(node) ?? []) : []
    if (ts.isExportAssignment(node) || modifiers.some(({ kind }) => kind === ts.SyntaxKind.DefaultKeyword)) found.push('default export')
    if (ts.isExportSpecifier(node) && node.name.text === 'default') found.push('default export')
  })
  return found
}

/** Whether the file only passes on what others export. */
export function isBarrel(tree: ts.SourceFile): boolean {
  return tree.statements.length > 0 && tree.statements.every((node) => ts.isExportDeclaration(node) && node.moduleSpecifier !== undefined)
}

/** Syntax that has no place here, with its line. */
export function refusedSyntax(tree: ts.SourceFile): readonly string[] {
  const found: string[] = []
  visit(tree, (node) => {
    const line = tree.getLineAndCharacterOfPosition(node.pos).line + 1
    if (ts.isEnumDeclaration(node)) found.push(`enum in line ${line}`)
    if (node.kind === ts.SyntaxKind.AnyKeyword) found.push(`any in line ${line}`)
    if (ts.isNonNullExpression(node)) found.push(`! in line ${line}`)
    if (ts.isModuleDeclaration(node) && (node.flags & ts.NodeFlags.Namespace) !== 0) found.push(`namespace in line ${line}`)
  })
  return found
}

/** Names of the classes, interfaces, types and functions declared. */
export function declaredNames(tree: ts.SourceFile): readonly string[] {
  const found: string[] = []
  visit(tree, (node) => {
    const named =
      ts.isClassDeclaration(node) || ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node) || ts.isFunctionDeclaration(node)
    if (named && node.name !== undefined) found.push(node.name.text)
  })
  return found
}

/** Names used as values that the file itself does not declare or import: its globals, and a few too many. */
export function freeNames(tree: ts.SourceFile): readonly string[] {
  const declared = new Set<string>()
  const used: string[] = []
  visit(tree, (node) => {
    if (!ts.isIdentifier(node)) return
    const { parent } = node
    const isDeclared =
      (ts.isVariableDeclaration(parent) ||
        ts.isParameter(parent) ||
        ts.isBindingElement(parent) ||
        ts.isFunctionDeclaration(parent) ||
        ts.isImportSpecifier(parent)) &&
      parent.name === node
    if (isDeclared) declared.add(node.text)
    else if (
      (ts.isPropertyAccessExpression(parent) && parent.expression === node) ||
      ts.isCallExpression(parent) ||
      ts.isNewExpression(parent)
    )
      used.push(node.text)
  })
  return used.filter((name) => !declared.has(name))
}
