/** URLs: what of one is the path below the prefix, and how one is redirected. Whether a path is any good is the engine's question. */
import { FST_STATIC_INVALID_REDIRECT_URL } from './errors.js';

/** A segment that names something else than itself, or hides a separator. */
const ODD_SEGMENT = /^(?:\.|%2e){1,2}$|\\|%5c|%00/i;
/** A slash that is escaped stays so: it would make a segment that no router saw. */
const SLASH = /%2f/gi;
/** What a name may have escaped (`encodeURIComponent`) that a router compares as it is written. */
const RESERVED = /%(?:24|26|2b|2c|3a|3b|3d|40)/gi;

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
    return decodeURIComponent(pathname.replace(SLASH, encodeURIComponent));
  } catch {
    return undefined;
  }
}

/**
 * The same URL with the reserved characters of its path (`$ & + , : ; = @`) as themselves; `undefined` when none is escaped.
 * `semicolon`: it ends the path for the router, and stays as it is written.
 */
export function withoutReservedEscapes(url: string, semicolon: boolean): string | undefined {
  if (!url.includes('%')) return undefined;
  const query = url.indexOf('?');
  const pathname = query === -1 ? url : url.slice(0, query);
  const plain = pathname.replace(RESERVED, (escaped) =>
    semicolon && escaped.toLowerCase() === '%3b' ? escaped : decodeURIComponent(escaped),
  );
  return plain === pathname ? undefined : plain + (query === -1 ? '' : url.slice(query));
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
