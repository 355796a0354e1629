/** URLs: what of one is the path below the prefix, and how one is redirected. Whether a path is any good is the engine's question. */
import { FST_STATIC_INVALID_REDIRECT_URL } from './errors.js';

/** A segment that names something else than itself, or hides a separator. */
const ODD_SEGMENT = /^(?:\.|%2e){1,2}$|\\|%5c|%00/i;
/** `decodeURI` leaves these two as they are, but a router does not. */
const HASH_OR_QUESTION_MARK = /%(?:23|3f)/gi;

export type PrefixMatcher = (url: string) => string | null | undefined;

/**
 * The path below the prefix, with its slash and still encoded; `undefined` for a URL that spells the prefix otherwise, and
 * `null` when what stands for a parameter of the prefix is no plain name.
 */
export function prefixMatcher(prefix: string): PrefixMatcher {
  const pieces = prefix.split(/(:[^/]*)/).map((piece) => (piece.startsWith(':') ? '([^/]+)' : literally(piece)));
  const matcher = pieces.length > 1 ? new RegExp(`^${pieces.join('')}`) : undefined;
  return (url) => {
    const query = url.indexOf('?');
    const pathname = query === -1 ? url : url.slice(0, query);
    let length = prefix.length;
    if (matcher !== undefined) {
      const matched = matcher.exec(pathname);
      if (matched === null) return undefined;
      if (matched.slice(1).some((segment) => ODD_SEGMENT.test(segment))) return null;
      length = matched[0].length;
    } else if (!pathname.startsWith(prefix)) {
      return undefined;
    }
    const rest = pathname.slice(length);
    // Behind the slash of the prefix another one makes an empty segment, which is to be seen and refused.
    return rest.startsWith('/') && !prefix.endsWith('/') ? rest : `/${rest}`;
  };
}

function literally(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

/** The path in the words of callbacks and listings: decoded as the engine decodes it. `undefined` when it cannot be. */
export function decodePath(pathname: string): string | undefined {
  try {
    return decodeURI(pathname.replace(HASH_OR_QUESTION_MARK, decodeURIComponent));
  } catch {
    return undefined;
  }
}

/** The same URL with a slash after its path; never one that names another host. Throws `FST_STATIC_INVALID_REDIRECT_URL`. */
export function withSlash(url: string): string {
  const local = `/${url.replace(/^[/\\]+/, '')}`;
  try {
    const { pathname, search } = new URL(local, 'http://localhost');
    return `${pathname.endsWith('/') ? pathname : `${pathname}/`}${search}`;
  } catch {
    throw new FST_STATIC_INVALID_REDIRECT_URL(url);
  }
}
