"""Take the picture of examples/web.py: docs/_static/browser.png. Needs Chromium.

The page, the service and the browser are real; the model is the test server, which answers with the
texts below. The last answer is still being written. Run it in the root of the checkout:
``python -m docs.make_browser_picture``, with the extra ``examples``.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from tests.recipes.chromium import open_browser
from tests.test_examples import web_service
from trio_responses.testing import open_test_server

PICTURE = Path(__file__).parent / "_static" / "browser.png"
SIZE = (760, 580)
TALK = {
    "What is a nursery in Trio?": "A nursery is where child tasks live. The block of the nursery"
    " ends only when all of them have ended, so no task is ever left behind.",
    "And a cancel scope?": "A piece of code that can be cancelled as a whole: by a deadline, or by"
    " calling its cancel() method.",
    "Which one do I open first for a time limit around several tasks?": "The cancel scope. Open the"
    " nursery inside it, and the deadline covers all the tasks that you start there.",
}
LAST = "document.querySelector('#said p:last-of-type')"
WORDS_BEFORE_THE_PICTURE = 11


async def main() -> None:
    """Ask the questions in the browser, and take the picture in the middle of the last answer."""
    with TemporaryDirectory() as folder:
        async with open_test_server() as server:
            *answers, last = TALK.values()
            for answer in answers:
                server.reply(answer)
            # Four events precede the first word.
            server.reply(last).hold(trio.Event(), after_events=4 + WORDS_BEFORE_THE_PICTURE)
            url = await server.serve_tcp()
            async with (
                web_service(Path(folder), "--url", url, "--processes", "1") as service,
                open_browser(Path(folder, "profile")) as browser,
            ):
                tab = await browser.open_tab(width=SIZE[0], height=SIZE[1])
                await tab.open(service.url)
                for question, answer in TALK.items():
                    await tab.write("#question", question)
                    seen = " ".join(answer.split()[:WORDS_BEFORE_THE_PICTURE])
                    state = "writing" if answer is last else "process"
                    await tab.wait_for(
                        f"{LAST}.textContent.startsWith({seen!r}) && "
                        f"document.querySelector('#said').lastChild.outerHTML.includes('{state}')"
                    )
                await tab.take_screenshot(PICTURE)


if __name__ == "__main__":
    trio.run(main)
