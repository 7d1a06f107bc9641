"""Dead letters about an erased topic do not stay, however late the event dies."""

import asyncio
from pathlib import Path

import pytest

from chassis.wire.cloudevents import Event
from knbroker.delivery import Delivery, Failure, Stored
from knbroker.erasures import TopicErasure, erasure_by
from knbroker.queue import Queue, note
from knbroker.topics import Topic
from kubeyaml.eventing import Trigger, routing
from kubeyaml.manifests import load
from tests.files import content
from tests.knative.objects import KNATIVE
from tests.knbroker.brokers import TO_A, idle, running
from tests.knbroker.subscribers import NEEDED, Subscribers, answer
from tests.waiting import LIMIT_S, until

ANN = Topic("user_id", "ann-of-the-hill")
USER = b"ann-of-the-hill"
ABOUT_ANN = b'{"user_id": "ann-of-the-hill"}'
ERASING = {"erased": "user_id"}


def about(user: str, number: int) -> Stored:
    data = f'{{"user_id": "{user}"}}'.encode()
    return Stored("ns/b", Event({**NEEDED, "id": str(number)}, data), 255, [])


def dead(delivery: Delivery) -> Delivery:
    return Delivery(delivery.event, delivery.trigger, 1, 0.0, Failure("http://a", 422, b"no"), is_dead=True)


async def letters(queue: Queue) -> list[str]:
    return [each["event"]["id"] for each in (await queue.figures(letters=9)).dead_letters]


@pytest.mark.anyio
async def test_an_event_that_dies_after_the_erasure_is_removed(tmp_path: Path) -> None:
    """Its letter leaves no byte in the files; the letters of others stay, and those about a topic that is kept again."""
    queue = Queue(tmp_path / "q.db", ["ns/t"], cleaning_pause_s=0)
    await queue.discard(ANN)
    for number, user in enumerate(["bob", "ann-of-the-hill"]):
        (delivery,) = await queue.add(about(user, number), ["ns/t"])
        await queue.put(dead(delivery))
    await until(lambda: USER not in content(tmp_path))
    assert await letters(queue) == ["0"]
    await queue.keep(ANN)
    (delivery,) = await queue.add(about("ann-of-the-hill", 2), ["ns/t"])
    await queue.put(dead(delivery))
    await queue.close()
    assert b"ann-of-the-hill" in content(tmp_path)


@pytest.mark.anyio
async def test_a_trigger_that_waits_keeps_the_event(tmp_path: Path) -> None:
    """Only the dead letter is removed: another Trigger may still get the event."""
    queue = Queue(tmp_path / "q.db", ["ns/t", "ns/u"], cleaning_pause_s=0)
    await queue.discard(ANN)
    first, second = await queue.add(about("ann-of-the-hill", 1), ["ns/t", "ns/u"])
    await queue.put(dead(first))
    async with asyncio.timeout(LIMIT_S):
        while await letters(queue):
            await asyncio.sleep(0.01)
    assert queue.read(second.event).event.data == ABOUT_ANN
    await queue.end(second)
    await until(lambda: USER not in content(tmp_path))
    await queue.close()


@pytest.mark.anyio
async def test_a_queue_learns_of_erasures_before_its_broker_starts(tmp_path: Path) -> None:
    """The erasures of the stores reach a new file and an existing one; the newest counts."""
    user = TopicErasure.of(ANN, at_us=5)
    note(tmp_path / "q.db", [user])
    note(tmp_path / "q.db", [TopicErasure.of(ANN, at_us=4, lifted=True)])
    queue = Queue(tmp_path / "q.db", ["ns/t"], cleaning_pause_s=0)
    (delivery,) = await queue.add(about("ann-of-the-hill", 1), ["ns/t"])
    await queue.put(dead(delivery))
    await until(lambda: USER not in content(tmp_path))
    await queue.close()


@pytest.mark.anyio
async def test_an_event_erases_a_topic(tmp_path: Path) -> None:
    """Once its subscriber accepts an erasure, earlier letters and later ones go. A refused erasure stays a letter."""
    subscribers = Subscribers([answer(422), answer(422), answer(202), answer(422), answer(422)])
    to_a = Trigger(TO_A.name, TO_A.broker, TO_A.subscriber, (), TO_A.delivery)
    queue = Queue(tmp_path / "q.db", [to_a.name], cleaning_pause_s=0, kept=ERASING)
    async with running(tmp_path, subscribers, [to_a], at_once=1, queue=queue, erasing=ERASING) as broker:
        for number, (type_, user) in enumerate(
            [("a", "ann-of-the-hill"), ("a", "bob"), ("erased", "ann-of-the-hill"), ("a", "ann-of-the-hill")]
        ):
            data = f'{{"user_id": "{user}"}}'.encode()
            await broker.accept("ns/b", Event({**NEEDED, "id": str(number), "type": type_}, data), [])
            await subscribers.until(number + 1)
        await until(lambda: USER not in content(tmp_path))
        assert [each["event"]["id"] for each in (await idle(broker))["dead_letters"]] == ["1"]
        await broker.accept("ns/b", Event({**NEEDED, "id": "4", "type": "erased"}, ABOUT_ANN), [])
        await subscribers.until(5)
        assert {each["event"]["id"] for each in (await idle(broker))["dead_letters"]} == {"1", "4"}
    assert b"ann-of-the-hill" in content(tmp_path)


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b'{"user": "ann"}'])
def test_an_event_without_a_topic_erases_nothing(data: bytes) -> None:
    """A subscriber may accept an event whose data name no topic."""
    assert erasure_by(Event({**NEEDED, "type": "erased"}, data), ERASING) is None


def test_the_time_of_the_event_is_the_time_of_the_erasure() -> None:
    """An erasure that is delivered late does not undo a later readmission; a time in the future counts as now."""
    event = {**NEEDED, "type": "erased", "time": "1970-01-01T00:00:01Z"}
    found = erasure_by(Event(event, ABOUT_ANN), ERASING)
    assert found == TopicErasure.of(ANN, at_us=1_000_000)
    for time in ("2999-01-01T00:00:00Z", "soon"):
        late = erasure_by(Event({**event, "time": time}, ABOUT_ANN), ERASING)
        assert late
        assert late.at_us <= TopicErasure.of(ANN).at_us
    assert erasure_by(Event(NEEDED, ABOUT_ANN), ERASING) is None


def test_the_manifests_say_which_events_erase() -> None:
    """The EventType of an erasure names the member of its data that holds the user."""
    assert routing(load(KNATIVE / "overlays/local")).erasing == {"dev.recsys.user.erased.v1": "user_id"}
