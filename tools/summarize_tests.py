#!/usr/bin/env python3
"""Counts the tests in ctest's JUnit files and says what failed and why tests were skipped.

Usage: summarize_tests.py BUILD=FILE.xml...
An entry of ctest that is a GoogleTest program wrote its cases to results/ENTRY.xml beside that file:
each of them counts, and if the program ended in an error that no case has, or wrote nothing, that is a
failure too. Of other entries ctest knows only that they were skipped; the reason stands in the
output: a script prints "SKIP: reason". The last line is exactly "N passed, N failed, N skipped". Exit
code 1 if a test failed, a file is missing or no test ran. Only the standard library is used.
"""

import collections
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

# A test that fails and then skips is reported by ctest as skipped.
BROKEN = ("[  FAILED  ]", "ERROR: AddressSanitizer", "ERROR: LeakSanitizer", ": runtime error: ")
SCRIPT_SKIP = re.compile(r"^\s*skip(?:ped)?:\s*(.+)$", re.IGNORECASE | re.MULTILINE)


def skip_reason(output):
    found = SCRIPT_SKIP.search(output)
    if found and found.group(1).strip():
        return " ".join(found.group(1).split())
    return "no reason given"


def classify_case(case):
    """(kind, detail) of one <testcase> of GoogleTest's."""
    failure, skipped = case.find("failure"), case.find("skipped")
    if failure is not None:
        return "failed", " ".join(failure.get("message", "").split())[:200]
    if skipped is not None:  # "file.cpp:12", then the reason
        text = skipped.get("message", "").split("\n", 1)[-1]
        return "skipped", " ".join(text.split()) or "no reason given"
    if case.get("status") != "run" or case.get("result", "completed") != "completed":
        return "skipped", "disabled"
    return "passed", ""


def gtest_cases(results, entry):
    """[(name, kind, detail)] of the cases of an entry of ctest's; [] where there is no file."""
    path = results / f"{entry}.xml"
    try:
        cases = ElementTree.parse(path).getroot().iter("testcase")
    except (OSError, ElementTree.ParseError):
        return []
    return [(f"{entry}: {case.get('classname')}.{case.get('name')}", *classify_case(case))
            for case in cases]


def classify(case):
    """(kind, detail) of one <testcase> of ctest's; kind is passed, failed or skipped."""
    status = case.get("status", "")
    output = case.findtext("system-out") or ""
    skipped = case.find("skipped")
    if status == "run" and case.find("failure") is None:
        return "passed", ""
    if status == "disabled":
        return "skipped", "disabled"
    # A test whose program is missing or could not start is "notrun" as well, but not a skip.
    if skipped is not None and skipped.get("message", "").startswith("SKIP_"):
        if any(mark in output for mark in BROKEN):
            return "failed", "failed before it skipped"
        return "skipped", skip_reason(output)
    failure = case.find("failure")
    if failure is None:
        failure = skipped
    return "failed", (failure.get("message") if failure is not None else "") or status


def main():
    counts = collections.Counter()
    failures = []
    skips = collections.defaultdict(list)
    for argument in sys.argv[1:]:
        build, path = argument.split("=", 1)
        try:
            cases = list(ElementTree.parse(path).getroot().iter("testcase"))
        except (OSError, ElementTree.ParseError) as error:
            failures.append(f"{build}: no test results: {error}")
            continue
        if not cases:
            failures.append(f"{build}: no test ran")
        found = []
        for case in cases:
            entry, (kind, detail) = case.get("name"), classify(case)
            inside = gtest_cases(Path(path).parent / "results", entry)
            if not inside or (kind == "failed" and all(of != "failed" for _, of, _ in inside)):
                inside.append((entry, kind, detail))
            found += inside
        for name, kind, detail in found:
            name = f"{build}: {name}"
            counts[kind] += 1
            if kind == "failed":
                failures.append(f"{name}: {detail}")
            elif kind == "skipped":
                skips[detail].append(name)
    if skips:
        print("\nskipped:")
        for reason, names in sorted(skips.items()):
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            print(f"  {len(names)} x {reason}\n      {shown}")
    if failures:
        print("\nfailed:")
        for failure in failures:
            print(f"  {failure}")
    print(f"\n{counts['passed']} passed, {max(counts['failed'], len(failures))} failed, "
          f"{counts['skipped']} skipped")
    return 1 if failures or counts["passed"] == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
