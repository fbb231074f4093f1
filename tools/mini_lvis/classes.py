"""The classes of the two data sets: 40, 10 of them rare, and 64, 20 of them rare.

Shapes, patterns and colours are spread evenly over the frequent and the common classes and over most of the
rare ones, so that a class is not hard because it is rare; each of those shares two of its three parts with
some frequent or common class, so it cannot be told from them by one part alone. The other rare classes, 4
and 8, are made of parts that no frequent or common class has: nothing frequent teaches them.
"""

from .vocabulary import make_vocabulary

# Each group has its most frequent class first. Balanced by search: within `f` and `c` every part appears as
# often as it can.
MINI = make_vocabulary(
    """
    checkered_green_cross dotted_blue_ring striped_purple_star plain_orange_triangle checkered_orange_circle
    striped_blue_flower dotted_yellow_heart plain_red_cross striped_red_triangle plain_blue_square
    checkered_green_ring dotted_green_flower striped_yellow_star checkered_purple_circle dotted_orange_square
    """,
    """
    plain_purple_square checkered_blue_star dotted_green_triangle striped_orange_cross plain_red_ring
    dotted_blue_heart striped_purple_flower checkered_orange_ring plain_yellow_flower dotted_red_circle
    striped_red_star plain_green_heart checkered_orange_cross dotted_yellow_triangle striped_purple_square
    """,
    """
    speckled_brown_bolt dotted_green_square plain_blue_flower wavy_pink_crescent striped_red_ring
    checkered_orange_heart zigzag_teal_arrow dotted_yellow_circle spiral_grey_drop checkered_purple_cross
    """,
    most=520,
    rare_counts=(10, 10, 9, 8, 8, 7, 6, 5, 4, 4),
    # Nearly even, so that every class's AP is worth something.
    val_images={"r": 21, "c": 30, "f": 41},
)
TAIL = make_vocabulary(
    """
    plain_yellow_cross striped_green_heart plain_blue_heart checkered_yellow_circle dotted_green_star
    dotted_purple_circle dotted_orange_ring dotted_blue_triangle striped_yellow_triangle
    checkered_purple_flower plain_red_ring dotted_red_flower plain_orange_flower plain_green_square
    checkered_blue_square striped_purple_star checkered_red_square striped_orange_cross
    checkered_green_triangle striped_orange_circle
    """,
    """
    striped_red_star striped_yellow_circle checkered_green_star dotted_green_heart checkered_orange_square
    checkered_green_heart plain_orange_square dotted_orange_flower dotted_blue_flower dotted_purple_star
    dotted_red_circle plain_purple_ring striped_blue_flower striped_yellow_ring checkered_red_cross
    dotted_green_triangle checkered_yellow_triangle striped_blue_cross plain_red_triangle
    checkered_purple_ring striped_purple_square plain_orange_heart plain_yellow_circle plain_blue_cross
    """,
    """
    plain_purple_heart speckled_brown_bolt plain_red_star wavy_pink_crescent checkered_blue_star
    striped_orange_flower zigzag_teal_arrow dotted_blue_cross spiral_grey_drop checkered_purple_triangle
    plain_orange_triangle speckled_pink_arrow checkered_yellow_square striped_red_square wavy_brown_drop
    dotted_green_circle zigzag_grey_bolt striped_green_ring spiral_teal_crescent dotted_yellow_flower
    """,
    most=400,
    rare_counts=(10, 10, 10, 9, 9, 9, 8, 8, 8, 7, 7, 7, 6, 6, 6, 5, 5, 4, 4, 4),
    val_images={"r": 22, "c": 18, "f": 19},
)
