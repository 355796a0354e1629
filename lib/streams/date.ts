/**
 * HTTP dates, RFC 9110 section 5.6.7, as seconds since 1970. The counterpart of `crates/http/src/date.rs`; a
 * test compares the two.
 *
 * Parses the three formats of the RFC and writes the first one. `Date.parse` accepts many other formats.
 */
import { trim } from './text.js';

/** The last second with a four-digit year: 9999-12-31T23:59:59Z. */
const LAST_SECOND = 253_402_300_799;

const DAYS = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'];
const LONG_DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** `Sun, 06 Nov 1994 08:49:37 GMT`: IMF-fixdate, the only format that is sent. */
const FIXDATE = /^(\w{3}), (\d\d) (\w{3}) (\d{4}) (\d\d):(\d\d):(\d\d) GMT$/;
/** `Sunday, 06-Nov-94 08:49:37 GMT`, RFC 850. */
const RFC850 = /^(\w{6,9}), (\d\d)-(\w{3})-(\d\d) (\d\d):(\d\d):(\d\d) GMT$/;
/** `Sun Nov  6 08:49:37 1994`, asctime(3). */
const ASCTIME = /^(\w{3}) (\w{3}) ([ \d]\d) (\d\d):(\d\d):(\d\d) (\d{4})$/;

/** Formats a time as IMF-fixdate. Times before 1970 and after 9999 are limited to these bounds. */
export function format(seconds: number): string {
  return new Date(Math.min(Math.max(0, seconds), LAST_SECOND) * 1000).toUTCString();
}

/**
 * Parses a date in one of the three formats; `undefined` for everything else. The day of the week is not compared with the date, as
 * in nginx and browsers. A leap second is parsed as the following second.
 */
export function parse(text: string): number | undefined {
  const date = trim(text);
  const [, weekday = '', day = '', month = '', year = '', ...time] = FIXDATE.exec(date) ?? [];
  if (weekday !== '') return seconds(DAYS, weekday, year, month, day, time);
  const [, longDay = '', ofMonth = '', name = '', short = '', ...clock] = RFC850.exec(date) ?? [];
  if (longDay !== '') {
    const century = Number(short) < 70 ? 2000 : 1900;
    return seconds(LONG_DAYS, longDay, century + Number(short), name, ofMonth, clock);
  }
  const [, asc = '', ascMonth = '', ascDay = '', hour = '', minute = '', second = '', ascYear = ''] =
    ASCTIME.exec(date) ?? [];
  return asc === '' ? undefined : seconds(DAYS, asc, ascYear, ascMonth, ascDay, [hour, minute, second]);
}

/** `undefined` for invalid dates, such as November 31, and invalid days of the week. */
function seconds(
  weekdays: string[],
  weekday: string,
  year: string | number,
  month: string,
  day: string,
  [hour, minute, second]: string[],
): number | undefined {
  const leap = second === '60' ? 1 : 0;
  const at = [
    Number(year),
    MONTHS.indexOf(month),
    Number(day),
    Number(hour),
    Number(minute),
    Number(second) - leap,
  ] as const;
  if (at[0] < 1970 || at[1] < 0) return undefined;
  const date = new Date(Date.UTC(...at));
  const exists =
    date.getUTCMonth() === at[1] &&
    date.getUTCDate() === at[2] &&
    date.getUTCHours() === at[3] &&
    date.getUTCMinutes() === at[4] &&
    date.getUTCSeconds() === at[5] &&
    weekdays.includes(weekday);
  return exists ? date.getTime() / 1000 + leap : undefined;
}
