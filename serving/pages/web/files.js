// Files from a drop, the clipboard or a dialog.

const NO_IMAGES = /(^|\/)(\.[^/]*|__MACOSX\/.*|thumbs\.db|desktop\.ini|dicomdir)$/i;

/** Pair a file with the name to show: with its folders if it came in one. */
function named(file, path) {
  return { file, name: (path || file.webkitRelativePath || file.name || "pasted image").replace(/^\//, "") };
}

/** Return the files of a dialog, without those that operating systems leave in folders. */
export function fromInput(input) {
  return [...input.files].map((file) => named(file)).filter(({ name }) => !NO_IMAGES.test(name));
}

/** Return the pasted files. */
export function fromClipboard(data) {
  return [...(data?.files ?? [])].map((file) => named(file));
}

/** Return the dropped files, with those of dropped folders. */
export async function fromDrop(transfer) {
  // Entries must be read before the first await: the list is empty once the event is over.
  const entries = [...transfer.items].map((item) => (item.kind === "file" ? item.webkitGetAsEntry?.() : null));
  if (!entries.some(Boolean)) return [...transfer.files].map((file) => named(file));
  const found = [];
  for (const entry of entries) if (entry) await walk(entry, found);
  return found;
}

async function walk(entry, found) {
  if (entry.isFile) {
    const inFolder = entry.fullPath.lastIndexOf("/") > 0;
    if (inFolder && NO_IMAGES.test(entry.fullPath)) return;
    found.push(named(await new Promise((resolve, reject) => entry.file(resolve, reject)), inFolder ? entry.fullPath : entry.name));
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // at most 100 at a time
    if (!some.length) return;
    for (const each of some) await walk(each, found);
  }
}
