"""How the page looks: Gradio's plain theme in this project's colours, light and dark; page.css arranges."""

import gradio as gr

FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")  # the visitor's own: nothing is fetched
MONO = ("ui-monospace", "SFMono-Regular", "Consolas", "monospace")

# Each pair of text and ground has a contrast of 4.5 at least.
THEME = gr.themes.Base(
    primary_hue="teal", neutral_hue="slate", radius_size="lg", text_size="md", font=FONT, font_mono=MONO
).set(
    color_accent="*primary_700",
    body_background_fill="white",
    body_background_fill_dark="*neutral_950",
    body_text_color_subdued="*neutral_500",
    body_text_color_subdued_dark="*neutral_400",
    background_fill_secondary_dark="*neutral_900",
    block_background_fill="transparent",
    block_background_fill_dark="transparent",
    block_border_width="0px",
    block_border_width_dark="0px",
    block_info_text_color="*neutral_500",
    block_info_text_color_dark="*neutral_400",
    input_background_fill="white",
    input_background_fill_dark="*neutral_900",
    input_border_color="*neutral_300",
    input_border_color_dark="*neutral_700",
    input_border_color_focus="*primary_600",
    input_border_color_focus_dark="*primary_400",
    input_placeholder_color="*neutral_500",
    input_placeholder_color_dark="*neutral_400",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_hover_dark="*primary_800",
    button_primary_text_color="white",
    button_primary_text_color_dark="white",
    button_secondary_background_fill="*neutral_100",
    button_secondary_background_fill_dark="*neutral_800",
    button_secondary_background_fill_hover="*neutral_200",
    button_secondary_background_fill_hover_dark="*neutral_700",
    checkbox_label_background_fill="transparent",
    checkbox_label_background_fill_dark="transparent",
    checkbox_label_background_fill_hover="*neutral_100",
    checkbox_label_background_fill_hover_dark="*neutral_800",
    checkbox_label_background_fill_selected="*primary_50",
    checkbox_label_background_fill_selected_dark="*neutral_800",
    checkbox_label_text_color_selected="*primary_800",
    checkbox_label_text_color_selected_dark="*primary_200",
    slider_color="*primary_600",
    slider_color_dark="*primary_500",
)
