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


@asynccontextmanager
async def opened_handler(
    settings: Settings, *, tokens: TokenFile | None, exposition: Exposition
) -> AsyncIterator[Recommend]:
    """Open the connections, and run the parts in the background until the block ends; add metrics to *exposition*."""
    async with AsyncExitStack() as stack:
        transport = await stack.enter_async_context(
            aclosing(HttptoolsTransport(max_connections=settings.max_connections))
        )
        token = tokens.first if tokens else None
        if tokens:
            await stack.enter_async_context(aclosing(tokens))

        def hop_to(name: str, url: str, *, impatient: bool = False) -> HopClient:
            hop = HopClient(name, url, transport=transport, token=token, hedge=settings.hedge, impatient=impatient)
            exposition.add(hop.instruments())
            return hop

        rank_items: Hop = hop_to("rank_items", settings.rank_items_url)
        if settings.shadow:
            candidate = hop_to("rank_items_shadow", settings.shadow.url)
            rank_items = shadow = Shadow(rank_items, candidate, share=settings.shadow.share)
            exposition.add(shadow.instruments())
            await stack.enter_async_context(aclosing(shadow))
        ranking = RankingClient(rank_items, batch=settings.coalesce_ranking)
        # An answer without features, early, is better than a late one. rank_items is different: under a rush its answers
        # become much slower before the autoscaler helps, and they are still worth the wait.
        extract_features = hop_to("extract_features", settings.extract_features_url, impatient=True)
        features = FeaturesClient(extract_features, batch=settings.coalesce_features)
        outbox = None
        if settings.sink:
            outbox = Outbox(settings.sink, source=SOURCE, transport=transport)
            exposition.add(outbox.instruments())
            await stack.enter_async_context(outbox.sending())
        popular = PopularList(ranking, settings.popular)
        # Functions that are being woken answer later than this one has to be ready.
        await stack.enter_async_context(popular.kept_fresh(waits=not settings.wake_urls))
        urls = dict.fromkeys(arm.url for each in settings.experiments for arm in each.arms if arm.url)
        clients = {
            # An arm that hangs leaves time for the default, so its client is impatient.
            url: RankingClient(hop_to(f"rank_items_arm_{number}", url, impatient=True), batch=settings.coalesce_ranking)
            for number, url in enumerate(urls, 1)
        }
        recommender = Recommender(
            features=features,
            ranking=ranking,
            popular=popular,
            exploration=settings.exploration,
            arms=Arms(settings.experiments, default=ranking, clients=clients) if settings.experiments else None,
        )
        exposition.add(recommender.instruments())
        yield Recommend(recommender, outbox=outbox)
