"""Open the handler of recommend: its connections, and the parts that run in the background."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from chassis.auth.tokens import TokenFile
from chassis.hop.client import Hop, HopClient
from chassis.telemetry.exposition import Exposition
from chassis.wire.transport import HttptoolsTransport
from functions.recommend.arms import Arms
from functions.recommend.handler import SOURCE, Recommend
from functions.recommend.hops import FeaturesClient, RankingClient
from functions.recommend.outbox import Outbox
from functions.recommend.popular import PopularList
from functions.recommend.recommender import Recommender
from functions.recommend.settings import Settings
from functions.recommend.shadow import Shadow


class Hops:
    """
    Makes clients for other functions. They share a connection pool.

    Args:
        settings: The settings.
        transport: The connection pool.
        tokens: The tokens that the clients send; None sends none.
        exposition: Gets the metrics of the clients.
    """

    def __init__(
        self,
        settings: Settings,
        transport: HttptoolsTransport,
        *,
        tokens: TokenFile | None,
        exposition: Exposition,
    ) -> None:
        self._transport = transport
        self._token = tokens.first if tokens else None
        self._hedge = settings.hedge
        self._exposition = exposition

    def make(self, name: str, url: str, *, impatient: bool = False) -> HopClient:
        """Return a client for the function at *url*."""
        hop = HopClient(name, url, transport=self._transport, token=self._token, hedge=self._hedge, impatient=impatient)
        self._exposition.add(hop.instruments())
        return hop


@asynccontextmanager
async def opened_handler(
    settings: Settings, *, tokens: TokenFile | None, exposition: Exposition
) -> AsyncIterator[Recommend]:
    """Open the connections, and run the parts in the background until the block ends; add metrics to *exposition*."""
    async with AsyncExitStack() as stack:
        transport = await stack.enter_async_context(
            aclosing(HttptoolsTransport(max_connections=settings.max_connections))
        )
        hops = Hops(settings, transport, tokens=tokens, exposition=exposition)
        rank_items: Hop = hops.make("rank_items", settings.rank_items_url)
        if settings.shadow:
            candidate = hops.make("rank_items_shadow", settings.shadow.url)
            rank_items = shadow = Shadow(rank_items, candidate, share=settings.shadow.share)
            exposition.add(shadow.instruments())
            await stack.enter_async_context(aclosing(shadow))
        ranking = RankingClient(rank_items, batch=settings.coalesce_ranking)
        # An answer without features, early, is better than a late one. rank_items is different: under a rush its answers
        # become much slower before the autoscaler helps, and they are still worth the wait.
        extract_features = hops.make("extract_features", settings.extract_features_url, impatient=True)
        features = FeaturesClient(extract_features, batch=settings.coalesce_features)
        outbox = None
        if settings.sink:
            outbox = Outbox(settings.sink, source=SOURCE, transport=transport)
            exposition.add(outbox.instruments())
            await stack.enter_async_context(outbox.sending())
        popular = PopularList(ranking, settings.popular)
        # Functions that are being woken answer later than this one has to be ready.
        await stack.enter_async_context(popular.kept_fresh(waits=not settings.wake_urls))
        arms = _make_arms(settings, hops, default=ranking) if settings.experiments else None
        recommender = Recommender(
            features=features,
            ranking=ranking,
            popular=popular,
            exploration=settings.exploration,
            arms=arms,
        )
        exposition.add(recommender.instruments())
        yield Recommend(recommender, outbox=outbox)


def _make_arms(settings: Settings, hops: Hops, *, default: RankingClient) -> Arms:
    urls = dict.fromkeys(arm.url for each in settings.experiments for arm in each.arms if arm.url)
    # An arm that hangs leaves time for the default, so its client is impatient.
    clients = {
        url: RankingClient(hops.make(f"rank_items_arm_{number}", url, impatient=True), batch=settings.coalesce_ranking)
        for number, url in enumerate(urls, 1)
    }
    return Arms(settings.experiments, default=default, clients=clients)
