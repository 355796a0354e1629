/** URLs: the path below the prefix, decoding, redirects. The engine checks whether a path is valid. */
import { FST_STATIC_INVALID_REDIRECT_URL } from './errors.js';

/** A segment that is `.` or `..`, or contains a separator or NUL. */
const UNSAFE_SEGMENT = /^(?:\.|%2e){1,2}$|\\|%5c|%00/i;
/** Escaped slashes are kept: decoded, they would separate segments, which the router has not seen. */
const SLASH = /%2f/gi;
/** Characters that `encodeURIComponent` escapes and the router compares without decoding. */
const RESERVED = /%(?:24|26|2b|2c|3a|3b|3d|40)/gi;

export type PrefixMatcher = (url: string) => string | null | undefined;

/**
 * A function that returns the encoded path below the prefix with a leading slash; `undefined` if the URL does not begin with the
 * prefix as it is written, and `null` if the value of a parameter of the prefix is not a plain name.
 */
export function prefixMatcher(prefix: string): PrefixMatcher {
  const parts = prefix.split(/(:[^/]*)/).map((part) => (part.startsWith(':') ? '([^/]+)' : escapeRegExp(part)));
  const matcher = parts.length > 1 ? new RegExp(`^${parts.join('')}`) : undefined;
  return (url) => {
    const query = url.indexOf('?');
    const pathname = query === -1 ? url : url.slice(0, query);
    let length = prefix.length;
    if (matcher !== undefined) {
      const matched = matcher.exec(pathname);
      if (matched === null) return undefined;
      if (matched.slice(1).some((segment) => UNSAFE_SEGMENT.test(segment))) return null;
      length = matched[0].length;
    } else if (!pathname.startsWith(prefix)) {
      return undefined;
    }
    const rest = pathname.slice(length);
    // A second slash after that of the prefix is an empty segment, which the engine refuses.
    return rest.startsWith('/') && !prefix.endsWith('/') ? rest : `/${rest}`;
  };
}

function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

/** The decoded path for callbacks and listings, as decoded by the engine; `undefined` if it is malformed. */
export function decodePath(pathname: string): string | undefined {
  try {
    return decodeURIComponent(pathname.replace(SLASH, encodeURIComponent));
  } catch {
    return undefined;
  }
}

/**
 * The URL with the reserved characters of its path (`$ & + , : ; = @`) unescaped; `undefined` if none is escaped. With `semicolon`,
 * escaped semicolons are kept, because the router ends the path at a semicolon.
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

/** The URL with a slash after its path; never a URL of another host. Throws `FST_STATIC_INVALID_REDIRECT_URL`. */
export function withSlash(url: string): string {
  const local = `/${url.replace(/^[/\\]+/, '')}`;
  try {
    const { pathname, search } = new URL(local, 'http://localhost');
    return `${pathname.endsWith('/') ? pathname : `${pathname}/`}${search}`;
  } catch {
    throw new FST_STATIC_INVALID_REDIRECT_URL(url);
  }
}
